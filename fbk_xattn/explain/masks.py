"""Random masks that depend on nothing but their seed, utterance, segmentation and number."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

LANES = 4  # 16-bit numbers in a 64-bit word
WORDS = 4  # 64-bit words a Philox counter value gives
RESOLUTION = 1 << 16


class Sampler(Protocol):
    """Draws which segments each mask occludes."""

    def occluded(
        self, key: tuple[object, ...], start: int, stop: int, n_segments: int
    ) -> NDArray[np.bool_]:
        """Return masks ``start`` to ``stop - 1`` of the stream named by ``key``.

        A mask depends on the key, its number and ``n_segments`` alone, never on ``start`` or
        ``stop``.

        Args:
            key: What the stream depends on: seed, utterance id, target, level.
            start: Number of the first mask.
            stop: Number after the last mask.
            n_segments: Segments of the level.

        Returns:
            ``(stop - start, n_segments)``, true where occluded.
        """


@dataclass(frozen=True)
class MaskSampler:
    """Occludes each segment independently with one probability.

    Attributes:
        probability: Of a segment's being occluded, more than 0 and at most 1, kept to a multiple of
            2^-16. At 1 every mask occludes everything.

    Example:
        >>> sampler = MaskSampler(0.5)
        >>> key = (1, "utterance", "input", 0)
        >>> masks = sampler.occluded(key, 0, 4, n_segments=6)
        >>> masks.shape
        (4, 6)
        >>> bool((sampler.occluded(key, 2, 3, n_segments=6) == masks[2]).all())
        True
    """

    probability: float

    def __post_init__(self) -> None:
        """Check the probability.

        Raises:
            ValueError: It is not in (0, 1], or so close to 0 that it would be kept as 0.
        """
        if not (0 < self.probability <= 1 and round(self.probability * RESOLUTION)):
            raise ValueError(
                f"occlusion probability {self.probability}: expected more than 0 and at most 1"
            )

    def occluded(
        self, key: tuple[object, ...], start: int, stop: int, n_segments: int
    ) -> NDArray[np.bool_]:
        """Return masks ``start`` to ``stop - 1`` of the stream named by ``key``.

        Mask ``i`` reads its own stretch of a counter-based stream (Philox), so it is the same
        whichever masks are drawn with it, in whichever process. See :class:`Sampler`.
        """
        # numpy's integers would overflow in the counters.
        start, stop, n_segments = int(start), int(stop), int(n_segments)
        digest = blake2b("\0".join(map(str, key)).encode(), digest_size=16).digest()
        counters = -(-n_segments // (LANES * WORDS))  # a mask begins at a whole counter value
        stream = np.random.Philox(key=np.frombuffer(digest, dtype="<u8").astype(np.uint64))
        stream.advance(start * counters)
        words = stream.random_raw((stop - start) * counters * WORDS)
        lanes = words.astype("<u8").view("<u2").reshape(stop - start, counters * WORDS * LANES)
        return np.asarray(lanes[:, :n_segments] < round(self.probability * RESOLUTION))


def share(n_masks: int, n_levels: int) -> list[int]:
    """Spread masks over levels as evenly as can be; the first levels take the remainder."""
    quotient, remainder = divmod(n_masks, n_levels)
    return [quotient + (level < remainder) for level in range(n_levels)]
