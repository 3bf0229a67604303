"""Whether one number is really higher than another: paired bootstrap, and a verdict from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fbk_xattn.analysis.bootstrap import Bootstrap

# From sums over utterances ``(..., K)`` to a number each ``(...)``.
Statistic = Callable[[NDArray[np.float64]], NDArray[np.float64]]
# Two sides that are equal come out as far apart as this at most, by rounding.
SAME_TO_ROUNDING = 1e-9
HOLDS, FAILS, UNDECIDED = "holds", "does not hold", "undecided"


@dataclass(frozen=True)
class Estimate:
    """A number of a set of utterances, with its bootstrap interval.

    Attributes:
        value: Of the utterances as they are; NaN where undefined.
        low: Low end of the interval; NaN where there are fewer than two utterances.
        high: High end.
        n_utterances: How many it is of; those that add nothing to the sums do not count.
    """

    value: float
    low: float
    high: float
    n_utterances: int

    @property
    def verdict(self) -> str:
        """What the interval says of the claim that the number is above 0.

        :data:`HOLDS` where all of the interval is above 0, :data:`FAILS` where all of it is below,
        and :data:`UNDECIDED` otherwise, also where there is no interval.
        """
        if self.low > SAME_TO_ROUNDING:
            return HOLDS
        return FAILS if self.high < -SAME_TO_ROUNDING else UNDECIDED


def estimate(
    totals: NDArray[np.float64], statistic: Statistic, bootstrap: Bootstrap | None = None
) -> Estimate:
    """Estimate a number that depends on sums over utterances.

    In every resample the statistic is computed anew from the sums over the utterances drawn, so
    whatever it does with them (a ratio, a best of several, a difference) is in the interval
    (percentile bootstrap, see :class:`Bootstrap`; of differences of corpus scores: Koehn 2004,
    Statistical Significance Tests for Machine Translation Evaluation).

    Args:
        totals: ``(U, ...)``, one row an utterance, of numbers.
        statistic: From sums ``(R, ...)`` to ``(R,)``; resamples for which it is NaN do not count.
        bootstrap: Resamples, level and seed; by default 1,000, 95 % and 0.

    Example:
        >>> gains = np.array([[0.1, 1], [0.2, 1], [0.3, 1], [0.2, 1]])
        >>> mean = estimate(gains, lambda sums: sums[:, 0] / sums[:, 1])
        >>> round(mean.value, 3), mean.verdict
        (0.2, 'holds')
    """
    n_utterances = int(totals.reshape(len(totals), -1).any(axis=1).sum()) if totals.size else 0
    if n_utterances == 0:
        return Estimate(float("nan"), float("nan"), float("nan"), 0)
    bootstrap = bootstrap or Bootstrap()
    with np.errstate(invalid="ignore", divide="ignore"):
        value = float(statistic(totals.sum(axis=0, keepdims=True))[0])
        if n_utterances < 2:
            return Estimate(value, float("nan"), float("nan"), n_utterances)
        sums = bootstrap.weights(len(totals)) @ totals.reshape(len(totals), -1)
        resampled = statistic(sums.reshape(-1, *totals.shape[1:]))
    defined = resampled[np.isfinite(resampled)]
    tail = (1 - bootstrap.level) / 2
    low, high = (
        np.quantile(defined, [tail, 1 - tail]).tolist() if defined.size else (float("nan"),) * 2
    )
    return Estimate(value, low, high, n_utterances)


def with_counts(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return values and how many of them are defined, for means over utterances.

    Args:
        values: ``(U, ...)``, NaN where undefined.

    Returns:
        ``(U, 2, ...)``: the values with 0 for NaN, and 1 where they are defined; :func:`means`
        makes means of sums of these.
    """
    defined = np.isfinite(values)
    return np.stack([np.where(defined, values, 0.0), defined.astype(np.float64)], axis=1)


def means(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the means of sums of :func:`with_counts`, ``(R, 2, ...)`` to ``(R, ...)``."""
    return sums[:, 0] / np.where(sums[:, 1] > 0, sums[:, 1], np.nan)
