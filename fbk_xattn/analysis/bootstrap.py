"""How much a mean over utterances depends on which utterances they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fbk_xattn.errors import InputError


@dataclass(frozen=True)
class Bootstrap:
    """Percentile bootstrap of the mean over utterances.

    Utterances are drawn with replacement, as many as there are, ``n_resamples`` times; the interval
    is between the quantiles ``(1 - level) / 2`` and ``(1 + level) / 2`` of the means (Efron and
    Tibshirani 1993, An Introduction to the Bootstrap, chapter 13; over utterances, as Bisani and
    Ney 2004 do for speech recognition). Tokens of one utterance are never torn apart, as they
    depend on each other.

    Attributes:
        n_resamples: How often the utterances are drawn.
        level: Share of the means that lie in the interval, between 0 and 1.
        seed: Of numpy's default generator; the same seed gives the same interval.
    """

    n_resamples: int = 1000
    level: float = 0.95
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            InputError: One of them is out of range.
        """
        if self.n_resamples < 1:
            raise InputError(f"bootstrap resamples {self.n_resamples}: expected at least 1")
        if not 0 < self.level < 1:
            raise InputError(f"bootstrap level {self.level}: expected more than 0 and less than 1")
        if self.seed < 0:
            raise InputError(f"bootstrap seed {self.seed}: expected 0 or more")

    def weights(self, n_utterances: int) -> NDArray[np.float64]:
        """Return how often each resample has each utterance, ``(n_resamples, n_utterances)``.

        The same for every call with the same number, so that statistics of the same utterances are
        resampled together: differences of them are paired.

        Args:
            n_utterances: At least 1.
        """
        drawn = np.random.default_rng(self.seed).multinomial(
            n_utterances, np.full(n_utterances, 1 / n_utterances), size=self.n_resamples
        )
        return drawn.astype(np.float64)

    def interval(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the interval of the mean of each column.

        Args:
            values: ``(U, ...)``, one row an utterance; NaN where an utterance has no value, which
                the means are without.

        Returns:
            ``(2, ...)``, low and high ends; NaN where fewer than two utterances have a value, as
            one says nothing about others.

        Example:
            >>> Bootstrap().interval(np.array([[0.1], [0.2], [0.3], [0.4]])).round(3).tolist()
            [[0.15], [0.35]]
        """
        defined = np.isfinite(values)
        return self.interval_of_ratio(np.where(defined, values, 0.0), defined)

    def interval_of_ratio(self, totals: NDArray[Any], counts: NDArray[Any]) -> NDArray[np.float64]:
        """Return the interval of a mean over what utterances have several of, such as tokens.

        Args:
            totals: ``(U, ...)``, for each utterance the sum of its values.
            counts: ``(U, ...)``, how many those are, 0 where there is none.

        Returns:
            ``(2, ...)``, low and high ends; NaN where fewer than two utterances have any.
        """
        n_utterances, shape = len(totals), totals.shape[1:]
        sums = totals.reshape(n_utterances, -1)
        numbers = counts.reshape(n_utterances, -1).astype(np.float64)
        enough = (numbers > 0).sum(axis=0) >= 2
        ends = np.full((2, sums.shape[1]), np.nan)
        if enough.any():
            # A resample is how often it has each utterance, so all means are one product.
            weights = self.weights(n_utterances)
            resampled, n = weights @ sums[:, enough], weights @ numbers[:, enough]
            means = np.full(resampled.shape, np.nan)
            np.divide(resampled, n, out=means, where=n > 0)
            tail = (1 - self.level) / 2
            ends[:, enough] = _quantiles(means, [tail, 1 - tail])
        return ends.reshape(2, *shape)


def _quantiles(means: NDArray[np.float64], levels: list[float]) -> NDArray[np.float64]:
    """Return the quantiles of each column of the means that are defined (some are, of each)."""
    if np.isfinite(means).all():
        return np.quantile(means, levels, axis=0)
    quantiles: NDArray[np.float64] = np.nanquantile(means, levels, axis=0)
    return quantiles
