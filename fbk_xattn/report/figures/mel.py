"""Frequencies of mel bins, as Kaldi lays them out for the features of fairseq."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

# Of the filterbanks that the data package computes: 20 Hz to half the sampling rate of 16 kHz.
LOWEST_HERTZ, HIGHEST_HERTZ = 20.0, 8000.0


def mel_of(hertz: ArrayLike) -> NDArray[np.float64]:
    """Return frequencies in mel: ``1127 ln(1 + f / 700)`` (the HTK Book's scale, as in Kaldi)."""
    return 1127.0 * np.log1p(np.asarray(hertz, np.float64) / 700.0)


def hertz_of(mel: ArrayLike) -> NDArray[np.float64]:
    """Return frequencies in Hz, the inverse of :func:`mel_of`."""
    return 700.0 * np.expm1(np.asarray(mel, np.float64) / 1127.0)


def bin_centres(n_bins: int) -> NDArray[np.float64]:
    """Return the frequency in Hz at which each triangular filter is highest, ``(n_bins,)``.

    The filters are equally far from each other in mel, and each reaches from the centre of the one
    before to that of the next; the first begins at 20 Hz, the last ends at 8,000 Hz.

    Example:
        >>> bin_centres(80)[[0, 39, 79]].round(1).tolist()
        [42.5, 1764.6, 7736.4]
    """
    low, high = mel_of([LOWEST_HERTZ, HIGHEST_HERTZ])
    return hertz_of(low + (high - low) * np.arange(1, n_bins + 1) / (n_bins + 1))


def bin_position(hertz: ArrayLike, n_bins: int) -> NDArray[np.float64]:
    """Return where frequencies lie among the bins: 0 is the centre of the first.

    Args:
        hertz: Frequencies.
        n_bins: Number of mel bins ``F``.
    """
    low, high = mel_of([LOWEST_HERTZ, HIGHEST_HERTZ])
    return (mel_of(hertz) - low) / (high - low) * (n_bins + 1) - 1
