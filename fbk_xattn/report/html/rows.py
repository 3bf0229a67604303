"""The rows of an utterance, tokens or words, and the correlation of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fbk_xattn.analysis.coefficients import pearson
from fbk_xattn.analysis.collecting import UtteranceMaps
from fbk_xattn.analysis.maps import CROSS_ATTENTION, has_part
from fbk_xattn.analysis.normalization import mean_std
from fbk_xattn.analysis.words import JOININGS, join_rows, word_slices
from fbk_xattn.store import Attribution

TOKENS = "tokens"
ROWS = (TOKENS, *JOININGS)  # what one row is: a token, or a word by one of the ways of joining


@dataclass(frozen=True, eq=False)
class RowCorrelations:
    """Correlation of cross-attention with one saliency map.

    Attributes:
        overall: ``(L + 1, H + 1)`` of the whole maps, as
            :func:`~fbk_xattn.analysis.correlation.correlate_utterance` has them.
        rows: ``(L + 1, H + 1, N)`` of each row by itself, both maps standardised as for the whole.
            NaN where undefined.
    """

    overall: NDArray[np.float64]
    rows: NDArray[np.float64]


def correlate_in_all_rows(
    attribution: Attribution, saliency: Mapping[str, NDArray[np.float64]]
) -> dict[str, dict[str, RowCorrelations]]:
    """Correlate an utterance in tokens and in words.

    Args:
        attribution: The utterance.
        saliency: By target ``(N, T')``, its maps at encoder steps, one row a token, not
            standardised.

    Returns:
        By name in :data:`ROWS` and by target; by target none without cross-attention.

    Raises:
        InputError: The shapes of the cross-attention disagree, or it has NaN or infinity.
    """
    words = word_slices(attribution.tokens[attribution.content])
    found: dict[str, dict[str, RowCorrelations]] = {}
    for name in ROWS:
        found[name] = {}
        if not has_part(attribution, CROSS_ATTENTION):
            continue
        attention = UtteranceMaps(attribution, None if name == TOKENS else name).attention("both")
        for target, rows in saliency.items():
            values = rows if name == TOKENS else join_rows(rows, words, name)
            found[name][target] = _correlated(attention, np.asarray(values, dtype=np.float64))
    return found


def _correlated(attention: NDArray[np.float64], saliency: NDArray[np.float64]) -> RowCorrelations:
    """Correlate standardised cross-attention ``(L + 1, H + 1, N, T')`` with a map ``(N, T')``."""
    size, n_rows = attention.shape[:2], len(saliency)
    rows = np.full((*size, n_rows), np.nan)
    if saliency.size == 0:
        return RowCorrelations(np.full(size, np.nan), rows)
    standardised = mean_std(saliency)
    for row in range(n_rows):
        rows[..., row] = pearson(attention[:, :, row], standardised[row])
    return RowCorrelations(pearson(attention.reshape(*size, -1), standardised.ravel()), rows)
