"""Correlation coefficients of maps, all heads at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fbk_xattn.analysis.metric import Metric
from fbk_xattn.errors import InputError

Correlate = Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]]


@dataclass(frozen=True)
class Coefficient:
    """A correlation coefficient.

    Attributes:
        metric: Its name in tables, direction, range and paper. Higher means that cross-attention
            tells more of the saliency; -1 is for opposite maps.
        compute: From ``(..., K)`` and ``(K,)`` to ``(...)``, NaN where undefined.
    """

    metric: Metric
    compute: Correlate


def pearson(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return Pearson's r of each row of ``x`` with ``y``, as ``scipy.stats.pearsonr`` defines it.

    Args:
        x: ``(..., K)``.
        y: ``(K,)``.

    Returns:
        ``(...)``, from -1 to 1; NaN where the row or ``y`` is constant or not finite.

    Example:
        >>> maps = np.array([[1.0, 2.0, 4.0], [4.0, 2.0, 1.0]])
        >>> pearson(maps, np.array([2.0, 4.0, 8.0])).round(3)
        array([ 1.   , -0.929])
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        r = unit(x) @ unit(y)
    return np.clip(r, -1.0, 1.0)


def spearman(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return Spearman's rho: Pearson's r of the ranks, ties sharing their mean rank.

    Shapes, range and what is undefined as for :func:`pearson`. Numbers that differ by rounding
    alone have different ranks.
    """
    from scipy.stats import rankdata  # 0.3 s to import, for this alone

    return pearson(rankdata(x, axis=-1), rankdata(y))


def kendall(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return Kendall's tau-b, which counts pairs in the same order against those in the opposite.

    Shapes, range and what is undefined as for :func:`pearson`. Slower than the others: one map
    after the other, in ``K log K``.
    """
    from scipy.stats import kendalltau

    rows = x.reshape(-1, x.shape[-1])
    varies = (np.ptp(rows, axis=-1) > 0) & (np.ptp(y) > 0)
    values = [
        float(kendalltau(row, y).statistic) if defined else np.nan
        for row, defined in zip(rows, varies.tolist(), strict=True)
    ]
    return np.array(values).reshape(x.shape[:-1])


COEFFICIENTS: Mapping[str, Coefficient] = {
    "pearson": Coefficient(
        Metric("Pearson", "higher", -1.0, 1.0, "Papi et al. 2025, arXiv:2509.18010"),
        pearson,
    ),
    "spearman": Coefficient(
        Metric("Spearman", "higher", -1.0, 1.0, "Spearman 1904, Am. J. Psychol. 15(1)"), spearman
    ),
    "kendall": Coefficient(
        Metric("Kendall", "higher", -1.0, 1.0, "Kendall 1945, Biometrika 33(3)"), kendall
    ),
}


def coefficient(name: str) -> Coefficient:
    """Return the coefficient of that name.

    Raises:
        InputError: There is none.
    """
    if name not in COEFFICIENTS:
        raise InputError(f"coefficient {name!r}: expected one of {', '.join(COEFFICIENTS)}")
    return COEFFICIENTS[name]


def unit(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Centre each row and scale it to length 1; a constant row to NaN."""
    constant = x.max(axis=-1, keepdims=True) == x.min(axis=-1, keepdims=True)
    centred = x - x.mean(axis=-1, keepdims=True)
    centred[np.broadcast_to(constant, centred.shape)] = 0.0
    centred /= np.abs(centred).max(axis=-1, keepdims=True)  # so that no square underflows
    centred /= np.sqrt(np.einsum("...k,...k->...", centred, centred))[..., np.newaxis]
    return centred
