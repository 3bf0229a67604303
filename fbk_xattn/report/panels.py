"""The three maps of an utterance as they are drawn: values, scale and words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fbk_xattn.analysis.coefficients import pearson
from fbk_xattn.analysis.maps import (
    CROSS_ATTENTION,
    NAMES,
    STORED_CROSS_ATTENTION,
    TARGETS,
    flags_for,
    has_part,
    mean_cross_attention,
    saliency_map,
)
from fbk_xattn.analysis.normalization import frame_wise, mean_std
from fbk_xattn.analysis.words import join_rows, word_slices
from fbk_xattn.store import Attribution

# A few cells far above the others would leave the rest in one colour.
SHOWN_PERCENTILES = (1.0, 99.5)


@dataclass(frozen=True)
class Panel:
    """One map, or the reason why it is not there.

    Attributes:
        title: What it shows.
        scale: How the values were aggregated and standardised.
        values: ``(N, T')``, content tokens or words by encoder steps; ``None`` where the utterance
            was saved without the map.
        note: Pearson's r with cross-attention, or for cross-attention its layers and heads;
            where ``values`` is ``None`` the flag that saves them.
    """

    title: str
    scale: str
    values: NDArray[np.float64] | None
    note: str = ""

    @property
    def limits(self) -> tuple[float, float]:
        """Return the values of the first and of the last colour; ``low < high``."""
        if self.values is None or not np.isfinite(self.values).any():
            return 0.0, 1.0
        finite = self.values[np.isfinite(self.values)]
        low, high = (float(value) for value in np.percentile(finite, SHOWN_PERCENTILES))
        if low < high:
            return low, high
        low, high = float(finite.min()), float(finite.max())
        return (low, high) if low < high else (low - 0.5, high + 0.5)


def panels_of(
    attribution: Attribution,
    aggregation: str = "2d-max",
    layers: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
    words: str | None = None,
    stored: str = "weights",
) -> list[Panel]:
    """Return input saliency, encoder-output saliency and cross-attention (paper, Figure 2).

    All are standardised as the correlation has them, so that the eye compares what Pearson's r
    compares, and the notes give r for the layers and heads shown.

    Args:
        attribution: The utterance, with at least one content token.
        aggregation: How input saliency is brought to encoder steps.
        layers: Decoder layers that cross-attention is averaged over, from 0; all by default.
        heads: Heads of these layers, from 0; all by default.
        words: ``mean`` or ``max``, how the rows of tokens are joined to those of words, once they
            are at encoder steps and before they are standardised; by default rows are tokens.
        stored: What was stored of cross-attention, a name in
            :data:`~fbk_xattn.analysis.maps.STORED_CROSS_ATTENTION`.

    Raises:
        InputError: No such aggregation, layer, head or joining, or the shapes of the utterance
            disagree.
    """

    def joined(rows: NDArray[np.float64]) -> NDArray[np.float64]:
        if words is None:
            return rows
        slices = word_slices(attribution.tokens[attribution.content])
        return join_rows(rows, slices, words).astype(np.float64, copy=False)

    row = "token" if words is None else f"word ({words})"
    attention = None
    if has_part(attribution, CROSS_ATTENTION):
        attention = frame_wise(joined(mean_cross_attention(attribution, layers, heads)))
    panels = []
    for target in TARGETS:
        aggregated = f"{aggregation}, " if target == "input" else ""
        title, scale = NAMES[target].capitalize(), f"{aggregated}standardised per {row}"
        if has_part(attribution, target):
            values = mean_std(joined(saliency_map(attribution, target, aggregation)))
            panels.append(Panel(title, scale, values, _correlation(attention, values)))
        else:
            panels.append(Panel(title, scale, None, _absent(target)))
    title, scale = STORED_CROSS_ATTENTION[stored].capitalize(), "standardised per encoder step"
    if attention is None:
        return [*panels, Panel(title, scale, None, _absent(CROSS_ATTENTION))]
    return [*panels, Panel(title, scale, attention, _averaged(layers, heads))]


def _absent(part: str) -> str:
    return f"not saved ({flags_for([part])} saves it)"


def _correlation(attention: NDArray[np.float64] | None, saliency: NDArray[np.float64]) -> str:
    if attention is None:
        return ""
    r = float(pearson(attention.ravel(), saliency.ravel()))
    return f"r {'undefined' if np.isnan(r) else f'= {r:z.3f}'} with cross-attention"


def _averaged(layers: Sequence[int] | None, heads: Sequence[int] | None) -> str:
    """Say which layers and heads the panel is the mean of, counted from 1 as in the tables."""
    if layers is None and heads is None:
        return "mean over all layers and heads"
    parts = []
    for name, chosen in (("layer", layers), ("head", heads)):
        if chosen is None:
            parts.append(f"all {name}s")
        else:
            numbers = ", ".join(str(number + 1) for number in chosen)
            parts.append(f"{name}{'s' if len(chosen) > 1 else ''} {numbers}")
    return " and ".join(parts)
