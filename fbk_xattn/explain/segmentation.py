"""How cells are grouped into segments that are occluded together.

A segmentation is an integer feature mask: one label a cell, 0 to ``n_segments - 1``, none missing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from skimage.segmentation import slic

from fbk_xattn.explain.utterance import Utterance

Labels = NDArray[np.int32]

FRAMES_PER_SECOND = 100


@dataclass(frozen=True)
class SlicPyramid:
    """Superpixels of the features at several resolutions.

    Source: SPES, Fucci et al. 2024, arXiv:2411.01710.

    Attributes:
        segments_per_second: Requested segments for each second, one value a level. skimage places
            seeds on a grid, so it may return more or fewer.
        cap_seconds: Length from which on the number of segments stays constant.
        sigma: Width of the Gaussian smoothing before segmentation, in cells; 0 for none.
        compactness: Weight of closeness against similarity of energy.

    Example:
        >>> from types import SimpleNamespace
        >>> import torch
        >>> levels = SlicPyramid()(SimpleNamespace(features=torch.zeros(100, 80)))
        >>> [labels.shape for labels in levels]
        [(100, 80), (100, 80), (100, 80)]
    """

    segments_per_second: tuple[float, ...] = (400, 500, 600)
    cap_seconds: float = 7.5
    sigma: float = 0.0
    compactness: float = 0.1

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: A value is out of range or not a number; the message begins with its name.
        """
        for name in ("segments_per_second", "cap_seconds", "compactness"):
            value = getattr(self, name)
            numbers = value if isinstance(value, tuple) else (value,)
            if not numbers or not all(0 < number < math.inf for number in numbers):
                raise ValueError(f"{name} {' '.join(map(str, numbers))}: expected more than 0")
        if not 0 <= self.sigma < math.inf:
            raise ValueError(f"sigma {self.sigma}: expected 0 or more")

    def __call__(self, utterance: Utterance) -> list[Labels]:
        """Return one ``(T, F)`` segmentation a level, of the features scaled to 0 to 1."""
        features = utterance.features.float().cpu().numpy()
        low, high = features.min(), features.max()
        scaled = (features - low) / (high - low) if high > low else np.zeros_like(features)
        seconds = min(len(features) / FRAMES_PER_SECOND, self.cap_seconds)
        return [
            contiguous(
                slic(
                    scaled,
                    n_segments=max(1, round(rate * seconds)),
                    compactness=self.compactness,
                    sigma=self.sigma,
                    channel_axis=None,
                    start_label=0,
                )
            )
            for rate in self.segments_per_second
        ]


@dataclass(frozen=True)
class Cells:
    """Every cell of the features on its own.

    As many segments as cells, so the store holds a map of a float a token and cell: 10 MB for
    10 seconds and 30 tokens.
    """

    def __call__(self, utterance: Utterance) -> list[Labels]:
        """Return one ``(T, F)`` segmentation of ``T * F`` segments."""
        n_frames, n_bins = utterance.features.shape
        return [np.arange(n_frames * n_bins, dtype=np.int32).reshape(n_frames, n_bins)]


@dataclass(frozen=True)
class Frames:
    """Every frame on its own, all its mel bins together.

    Example:
        >>> from types import SimpleNamespace
        >>> import torch
        >>> Frames()(SimpleNamespace(features=torch.zeros(2, 3)))
        [array([[0, 0, 0],
               [1, 1, 1]], dtype=int32)]
    """

    def __call__(self, utterance: Utterance) -> list[Labels]:
        """Return one ``(T, F)`` segmentation of ``T`` segments."""
        n_frames, n_bins = utterance.features.shape
        return [np.repeat(np.arange(n_frames, dtype=np.int32)[:, None], n_bins, axis=1)]


@dataclass(frozen=True)
class Bands:
    """Every mel bin on its own, from the first to the last frame.

    Example:
        >>> from types import SimpleNamespace
        >>> import torch
        >>> Bands()(SimpleNamespace(features=torch.zeros(2, 3)))
        [array([[0, 1, 2],
               [0, 1, 2]], dtype=int32)]
    """

    def __call__(self, utterance: Utterance) -> list[Labels]:
        """Return one ``(T, F)`` segmentation of ``F`` segments."""
        n_frames, n_bins = utterance.features.shape
        return [np.repeat(np.arange(n_bins, dtype=np.int32)[None], n_frames, axis=0)]


InputSegmenter = SlicPyramid | Cells | Frames | Bands
# By name. The flag of an attribute is --NAME-ATTRIBUTE, as in --slic-sigma.
INPUT_SEGMENTERS: dict[str, type[InputSegmenter]] = {
    "slic": SlicPyramid,
    "cell": Cells,
    "frame": Frames,
    "band": Bands,
}


@dataclass(frozen=True)
class EncoderSteps:
    """Every encoder step on its own.

    Example:
        >>> from types import SimpleNamespace
        >>> import torch
        >>> EncoderSteps()(SimpleNamespace(encoder_out=torch.zeros(3, 16)))
        [array([0, 1, 2], dtype=int32)]
    """

    def __call__(self, utterance: Utterance) -> list[Labels]:
        """Return one ``(T',)`` segmentation: each step its own segment."""
        return [np.arange(utterance.encoder_out.shape[0], dtype=np.int32)]


def contiguous(labels: NDArray[np.integer]) -> Labels:
    """Renumber labels to 0, 1, ... in ascending order, so that none is missing."""
    _, inverse = np.unique(labels, return_inverse=True)
    return inverse.reshape(labels.shape).astype(np.int32)


class SegmentationAhead:
    """A segmenter that has begun with the next utterance while the device works on this one.

    Example:
        >>> import torch
        >>> steps = SegmentationAhead(EncoderSteps())
        >>> some = Utterance("a", *torch.zeros(4, 2, 3).unbind())
        >>> steps.announce(some)
        >>> steps(some)
        [array([0, 1], dtype=int32)]
    """

    def __init__(self, segmenter: Callable[[Utterance], list[Labels]]) -> None:
        """Use ``segmenter``."""
        self._segmenter = segmenter
        self._thread = ThreadPoolExecutor(1)
        self._begun: dict[str, Future[list[Labels]]] = {}

    def announce(self, utterance: Utterance) -> None:
        """Begin with an utterance that is to come."""
        self._begun[utterance.id] = self._thread.submit(self._segmenter, utterance)

    def __call__(self, utterance: Utterance) -> list[Labels]:
        """Return the segmentations of an utterance, announced or not."""
        begun = self._begun.pop(utterance.id, None)
        return self._segmenter(utterance) if begun is None else begun.result()
