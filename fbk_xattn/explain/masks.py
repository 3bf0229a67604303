"""Random masks that depend on nothing but their seed, utterance, segmentation and number."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

LANES = 4  # 16-bit numbers in a 64-bit word
WORDS = 4  # 64-bit words a Philox counter value gives
RESOLUTION = 1 << 16


@dataclass(frozen=True)
class MaskSampler:
    """Occludes each segment independently with one probability.

    Attributes:
        probability: Of a segment's being occluded, in (0, 1), kept to a multiple of 2^-16.
    """

    probability: float

    def __post_init__(self) -> None:
        """Check the probability.

        Raises:
            ValueError: It is not in (0, 1), or too close to an end to be kept.
        """
        if not 0 < round(self.probability * RESOLUTION) < RESOLUTION:
            raise ValueError(f"occlusion probability {self.probability}, expected between 0 and 1")

    def occluded(
        self, key: tuple[object, ...], start: int, stop: int, n_segments: int
    ) -> NDArray[np.bool_]:
        """Return masks ``start`` to ``stop - 1`` of the stream named by ``key``.

        Mask ``i`` reads its own stretch of a counter-based stream (Philox), so it is the same
        whichever masks are drawn with it, in whichever process.

        Args:
            key: What the stream depends on: seed, utterance id, target, level.
            start: Number of the first mask.
            stop: Number after the last mask.
            n_segments: Segments of the level.

        Returns:
            ``(stop - start, n_segments)``, true where occluded.
        """
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
