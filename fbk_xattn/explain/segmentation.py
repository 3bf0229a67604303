"""How cells are grouped into segments that are occluded together.

A segmentation is an integer feature mask: one label a cell, 0 to ``n_segments - 1``, none missing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from skimage.segmentation import slic

from fbk_xattn.explain.utterance import Utterance

Labels = NDArray[np.int32]

FRAMES_PER_SECOND = 100


@dataclass(frozen=True)
class SlicPyramid:
    """Superpixels of the features at several resolutions (SPES, Fucci et al. 2024).

    Attributes:
        segments_per_second: Requested segments for each second, one value a level. skimage places
            seeds on a grid, so it may return more or fewer.
        cap_seconds: Length from which on the number of segments stays constant.
        sigma: Width of the Gaussian smoothing before segmentation, in cells; 0 for none.
        compactness: Weight of closeness against similarity of energy.
    """

    segments_per_second: tuple[float, ...] = (400, 500, 600)
    cap_seconds: float = 7.5
    sigma: float = 0.0
    compactness: float = 0.1

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
class EncoderSteps:
    """Every encoder step on its own."""

    def __call__(self, utterance: Utterance) -> list[Labels]:
        """Return one ``(T',)`` segmentation: each step its own segment."""
        return [np.arange(utterance.encoder_out.shape[0], dtype=np.int32)]


def contiguous(labels: NDArray[np.integer]) -> Labels:
    """Renumber labels to 0, 1, ... in ascending order, so that none is missing."""
    _, inverse = np.unique(labels, return_inverse=True)
    return inverse.reshape(labels.shape).astype(np.int32)
