"""The normalisations of the published system, for an input map with its previous-token map.

The two maps of a token explain it together: what of the audio and what of the text before it the
token depends on (SPES, Fucci et al. 2024, arXiv:2411.01710). Only the causal part of the
previous-token map counts, columns 0 to i of row i, and what is beyond it stays 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fbk_xattn.analysis.normalization import mean_std
from fbk_xattn.errors import InputError


class SaliencyPair(NamedTuple):
    """Maps of ``S`` tokens, or of 1 once they are averaged over the sentence.

    Attributes:
        saliency: ``(S, ...)`` of the input, such as ``(S, T, F)``.
        token_saliency: ``(S, S)`` of the previous tokens, 0 above the diagonal.
    """

    saliency: NDArray[np.float64]
    token_saliency: NDArray[np.float64]


def single_mean_std(pair: SaliencyPair) -> SaliencyPair:
    """Standardise each row of each map by itself: mean 0, unbiased standard deviation 1.

    A constant row becomes 0, and so does any cell that comes out as NaN or infinite. Row i of the
    previous-token map has ``i + 1`` cells.
    """
    tokens = np.zeros_like(pair.token_saliency)
    for i, row in enumerate(pair.token_saliency):
        tokens[i, : i + 1] = mean_std(row[np.newaxis, : i + 1])
    return SaliencyPair(mean_std(pair.saliency), tokens)


def paired_min_max(pair: SaliencyPair) -> SaliencyPair:
    """Scale each row to the range 0 to 1, over both maps together.

    Returns:
        Rows from 0 to 1. A row where both maps are one and the same number has no range: it is NaN,
        as in the published system.
    """
    S = len(pair.saliency)
    rows = pair.saliency.reshape(S, -1)
    scaled, tokens = np.empty_like(rows), np.zeros_like(pair.token_saliency)
    for i in range(S):
        causal = pair.token_saliency[i, : i + 1]
        low, high = min(rows[i].min(), causal.min()), max(rows[i].max(), causal.max())
        width = high - low if high > low else np.nan
        scaled[i] = (rows[i] - low) / width
        tokens[i, : i + 1] = (causal - low) / width
    return SaliencyPair(scaled.reshape(pair.saliency.shape), tokens)


def sentence(pair: SaliencyPair) -> SaliencyPair:
    """Average each map over all of its rows, beyond the causal part too: ``(1, ...)``, ``(1, S)``.

    NaN in a row is NaN in the mean.
    """
    return SaliencyPair(
        pair.saliency.mean(axis=0, keepdims=True), pair.token_saliency.mean(axis=0, keepdims=True)
    )


NORMALIZERS: Mapping[str, Callable[[SaliencyPair], SaliencyPair]] = {
    "single_mean_std": single_mean_std,
    "paired_min_max": paired_min_max,
    "sentence": sentence,
}


def normalize(
    saliency: NDArray[np.floating[Any]],
    token_saliency: NDArray[np.floating[Any]] | None = None,
    chain: Sequence[str] = ("single_mean_std", "paired_min_max"),
) -> SaliencyPair:
    """Apply normalisations of the published system, one after the other.

    Args:
        saliency: ``(S, ...)``, the input map.
        token_saliency: ``(S, S)``, the previous-token map; by default 0, as where no previous
            token was occluded.
        chain: Names in :data:`NORMALIZERS`, in order; ``sentence`` comes last.

    Returns:
        Both maps, in double precision.

    Raises:
        InputError: No such normalisation, or one after ``sentence``.
        ValueError: The maps have no row or cell, or different numbers of rows.

    Example:
        >>> maps = np.array([[[0.0, 2.0], [4.0, 1.0]]])
        >>> normalize(maps, chain=["paired_min_max"]).saliency
        array([[[0.  , 0.5 ],
                [1.  , 0.25]]])
    """
    for number, name in enumerate(chain, start=1):
        if name not in NORMALIZERS:
            raise InputError(f"normalisation {name!r}: expected one of {', '.join(NORMALIZERS)}")
        if name == "sentence" and number < len(chain):
            raise InputError(f"normalisation {chain[number]!r} after 'sentence': expected it last")
    S = len(saliency)
    tokens = np.zeros((S, S)) if token_saliency is None else token_saliency
    if saliency.size == 0 or tokens.shape != (S, S):
        raise ValueError(
            f"maps of the shapes {saliency.shape} and {tokens.shape}, expected (S, ...) and (S, S)"
        )
    pair = SaliencyPair(
        np.asarray(saliency, dtype=np.float64), np.tril(np.asarray(tokens, dtype=np.float64))
    )
    for name in chain:
        pair = NORMALIZERS[name](pair)
    return pair
