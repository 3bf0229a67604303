"""Saliency of feature frames brought to the resolution of the encoder output."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fbk_xattn.errors import InputError

Aggregation = Callable[[NDArray[np.floating[Any]], int], NDArray[np.float64]]


def aggregate(
    saliency: NDArray[np.floating[Any]], n_steps: int, frames_per_step: int, how: str = "2d-max"
) -> NDArray[np.float64]:
    """Aggregate a saliency map of the input features to encoder steps.

    The window of encoder step ``t'`` is the frames ``[t' * frames_per_step, (t' + 1) *
    frames_per_step)`` cut at ``T``: where the last one is partial, its mean is over the frames that
    it has. This puts the saliency of the input on the time axis of the cross-attention (paper,
    aggregation of input saliency).

    Args:
        saliency: ``(S, T, F)``, one map a token.
        n_steps: Number of encoder steps ``T'``.
        frames_per_step: Frames that an encoder step covers (the subsampling factor).
        how: Name in :data:`AGGREGATIONS`.

    Returns:
        ``(S, T')``.

    Raises:
        InputError: ``how`` is not the name of an aggregation.
        ValueError: ``saliency`` is not of three axes or has no cell, ``frames_per_step`` is not
            positive, or ``n_steps`` is not ``ceil(T / frames_per_step)``.

    Example:
        >>> frames = np.array([[[1.0, 2.0], [3.0, 4.0], [5.0, 0.0]]])  # one token, three frames
        >>> aggregate(frames, n_steps=2, frames_per_step=2)
        array([[4., 5.]])
        >>> aggregate(frames, n_steps=2, frames_per_step=2, how="1d-max-1d-avg")
        array([[3., 5.]])
    """
    if how not in AGGREGATIONS:
        raise InputError(f"aggregation {how!r}: expected one of {', '.join(AGGREGATIONS)}")
    if frames_per_step < 1:
        raise ValueError(f"frames_per_step is {frames_per_step}, expected at least 1")
    if saliency.ndim != 3 or 0 in saliency.shape[1:]:
        raise ValueError(
            f"saliency has the shape {saliency.shape}, expected (tokens, frames, mel bins)"
        )
    n_frames = saliency.shape[1]
    expected = -(-n_frames // frames_per_step)
    if n_steps != expected:
        raise ValueError(
            f"{n_steps} encoder steps for {n_frames} frames, expected {expected} "
            f"({frames_per_step} frames a step)"
        )
    return AGGREGATIONS[how](saliency, frames_per_step)


def max_over_window(
    saliency: NDArray[np.floating[Any]], frames_per_step: int
) -> NDArray[np.float64]:
    """Return the maximum over frequency and over the frames of each step, ``(S, T')``."""
    peaks = saliency.max(axis=2)
    starts = _window_starts(peaks.shape[1], frames_per_step)
    return np.maximum.reduceat(peaks, starts, axis=1).astype(np.float64)


def mean_over_window(
    saliency: NDArray[np.floating[Any]], frames_per_step: int
) -> NDArray[np.float64]:
    """Return the mean over frequency and over the frames of each step, ``(S, T')``."""
    return _mean_over_frames(saliency.mean(axis=2, dtype=np.float64), frames_per_step)


def mean_of_maxima(
    saliency: NDArray[np.floating[Any]], frames_per_step: int
) -> NDArray[np.float64]:
    """Return the mean over the frames of each step of the maximum over frequency, ``(S, T')``."""
    return _mean_over_frames(saliency.max(axis=2).astype(np.float64), frames_per_step)


AGGREGATIONS: Mapping[str, Aggregation] = {
    "2d-max": max_over_window,
    "2d-avg": mean_over_window,
    "1d-max-1d-avg": mean_of_maxima,
}


def _mean_over_frames(frames: NDArray[np.float64], frames_per_step: int) -> NDArray[np.float64]:
    """Average ``(S, T)`` over the frames of each step."""
    n_frames = frames.shape[1]
    starts = _window_starts(n_frames, frames_per_step)
    means: NDArray[np.float64] = np.add.reduceat(frames, starts, axis=1)
    means /= np.diff(starts, append=n_frames)
    return means


def _window_starts(n_frames: int, frames_per_step: int) -> NDArray[np.intp]:
    """Return the first frame of each step's window."""
    return np.arange(0, n_frames, frames_per_step, dtype=np.intp)
