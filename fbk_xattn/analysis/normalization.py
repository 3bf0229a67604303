"""Standardisation of cross-attention and of saliency before they are compared."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Which of the two maps is standardised before they are correlated, by the value of --normalize.
STANDARDISED: Mapping[str, tuple[str, ...]] = {
    "both": ("cross-attention", "saliency"),
    "cross-attention": ("cross-attention",),
    "saliency": ("saliency",),
    "none": (),
}

# Averaging equal numbers leaves differences of a few units in the last place (2e-16), which a
# division by their own deviation would blow up to 1. The values compared here come from float32,
# whose distinct numbers are 6e-8 apart, so nothing real is as close as this.
SAME_TO_ROUNDING = 1e-12


def frame_wise(weights: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Standardise each encoder step over the tokens.

    Takes away what a step gets from every token alike, such as the attention that decoders park on
    the last frames (paper, frame-wise normalisation of cross-attention).

    Args:
        weights: ``(..., S, T')``, cross-attention.

    Returns:
        ``(..., S, T')``: each column minus its mean over the ``S`` tokens, divided by its
        population standard deviation; a deviation of zero is counted as 1.

    Example:
        >>> frame_wise(np.array([[0.2, 0.5], [0.8, 0.5]]))
        array([[-1.,  0.],
               [ 1.,  0.]])
    """
    values = np.asarray(weights, dtype=np.float64)
    if values.shape[-2] == 0:
        return values.copy()
    centred = values - values.mean(axis=-2, keepdims=True)
    deviation = np.sqrt(np.mean(centred**2, axis=-2, keepdims=True))
    constant = _is_constant(values, axis=-2)
    centred[np.broadcast_to(constant, centred.shape)] = 0.0
    deviation[constant | (deviation == 0)] = 1.0
    centred /= deviation
    return centred


def mean_std(saliency: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Standardise the saliency map of each token over all of its cells.

    Args:
        saliency: ``(S, ...)``, one map a token, of any number of axes.

    Returns:
        Same shape: each map minus its mean, divided by its unbiased standard deviation. A constant
        map becomes 0, and so does any cell that comes out as NaN or infinite (SPES, Fucci et al.
        2024, the ``mean_std`` normalisation of one map).

    Example:
        >>> mean_std(np.array([[1.0, 2.0, 3.0], [4.0, 4.0, 4.0]]))
        array([[-1.,  0.,  1.],
               [ 0.,  0.,  0.]])
    """
    values = np.asarray(saliency, dtype=np.float64)
    if values.size == 0:
        return values.copy()
    rows = values.reshape(values.shape[0], -1)
    # NaN, infinity and maps of one cell are expected here, and answered by the last line.
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        centred = rows - rows.mean(axis=1, keepdims=True)
        variance = np.sum(centred**2, axis=1, keepdims=True) / np.float64(rows.shape[1] - 1)
        centred /= np.sqrt(variance)
        defined = np.isfinite(centred) & ~_is_constant(rows, axis=1)
    return np.where(defined, centred, 0.0).reshape(values.shape)


def _is_constant(values: NDArray[np.float64], axis: int) -> NDArray[np.bool_]:
    """Tell where ``values`` are all the same along ``axis`` (kept, of length 1)."""
    high = values.max(axis=axis, keepdims=True)
    low = values.min(axis=axis, keepdims=True)
    with np.errstate(invalid="ignore"):
        constant: NDArray[np.bool_] = high - low <= SAME_TO_ROUNDING * np.maximum(
            np.abs(high), np.abs(low)
        )
    return constant
