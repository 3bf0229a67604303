"""Correlation of cross-attention with saliency, of each decoder layer and head (paper, Table 1)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fbk_xattn.analysis.aggregation import AGGREGATIONS
from fbk_xattn.analysis.maps import (
    CROSS_ATTENTION,
    NAMES,
    TARGETS,
    check_target,
    cross_attention_heads,
    flags_for,
    has_part,
    saliency_map,
)
from fbk_xattn.analysis.normalization import frame_wise, mean_std
from fbk_xattn.analysis.table import CorrelationTable
from fbk_xattn.errors import InputError
from fbk_xattn.store import Attribution, AttributionStore

Progress = Callable[[int, int], None]


def correlate_utterance(
    attribution: Attribution, target: str, aggregation: str = "2d-max"
) -> NDArray[np.float64]:
    """Correlate the cross-attention of one utterance with its saliency.

    Language tag and eos are left out first. Cross-attention is averaged over the heads in question
    and standardised frame-wise; saliency is aggregated to encoder steps (``"input"``) and
    standardised per token; Pearson's r is that of the two maps flattened (paper, correlation of
    cross-attention with saliency).

    Args:
        attribution: The utterance, with cross-attention and the target's saliency.
        target: ``"input"`` or ``"encoder"`` (encoder output).
        aggregation: Name in :data:`~fbk_xattn.analysis.aggregation.AGGREGATIONS`, for the input.

    Returns:
        ``(L + 1, H + 1)`` from -1 to 1: ``[l, h]`` one head, ``[l, H]`` the mean over the heads of
        a layer, ``[L, h]`` the mean over the layers, ``[L, H]`` the mean over all. The weights are
        what is averaged, not the correlations. NaN where undefined: no content token, or a map
        that is constant once standardised (always so with one content token).

    Raises:
        InputError: Unknown target or aggregation, or the utterance lacks a part.
    """
    weights = cross_attention_heads(attribution)
    saliency = saliency_map(attribution, target, aggregation)
    weights = _with_mean(_with_mean(weights, axis=1), axis=0)
    if saliency.size == 0:
        return np.full(weights.shape[:2], np.nan)
    attention = frame_wise(weights)
    return pearson(attention.reshape(*attention.shape[:2], -1), mean_std(saliency).ravel())


def correlate(
    store: AttributionStore, target: str, aggregation: str = "2d-max"
) -> CorrelationTable:
    """Correlate cross-attention with one kind of saliency over all utterances of a store.

    Args:
        store: Utterances with cross-attention and saliency.
        target: ``"input"`` or ``"encoder"`` (encoder output).
        aggregation: Name in :data:`~fbk_xattn.analysis.aggregation.AGGREGATIONS`, for the input.

    Returns:
        The table; utterances saved without a part are in its ``left_out``.

    Raises:
        InputError: Unknown target or aggregation; the store is empty, has a damaged file, or no
            utterance with the target and cross-attention.
    """
    return correlate_targets(store, (target,), aggregation)[target]


def correlate_targets(
    store: AttributionStore,
    targets: Sequence[str] = TARGETS,
    aggregation: str = "2d-max",
    *,
    absent_is_error: bool = True,
    progress: Progress | None = None,
) -> dict[str, CorrelationTable]:
    """Correlate cross-attention with several kinds of saliency, reading each file once.

    Args:
        store: Utterances with cross-attention and saliency.
        targets: Any of :data:`~fbk_xattn.analysis.maps.TARGETS`.
        aggregation: Name in :data:`~fbk_xattn.analysis.aggregation.AGGREGATIONS`, for the input.
        absent_is_error: Whether a target that no utterance has is an error; otherwise the result
            has no table of it, and it is an error that no target is there.
        progress: Called with the number of utterances done and of all.

    Returns:
        The tables by target, in the order of ``targets``.

    Raises:
        InputError: As for :func:`correlate`.
    """
    for target in targets:
        check_target(target)
    if aggregation not in AGGREGATIONS:
        raise InputError(f"aggregation {aggregation!r}: expected one of {', '.join(AGGREGATIONS)}")
    ids = store.ids()
    if not ids:
        raise InputError(f"{store.path}: no utterance in this store, expected at least one")
    collectors = {target: _Collector(target, aggregation) for target in targets}
    for number, utterance_id in enumerate(ids, start=1):
        attribution = store.read(utterance_id)
        for collector in collectors.values():
            collector.add(attribution)
        if progress:
            progress(number, len(ids))
    empty = [collector for collector in collectors.values() if not collector.ids]
    if empty and (absent_is_error or len(empty) == len(collectors)):
        raise InputError(_nothing_to_correlate(store, empty))
    return {t: collector.table() for t, collector in collectors.items() if collector.ids}


def pearson(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return Pearson's r of each row of ``x`` with ``y``, as ``scipy.stats.pearsonr`` defines it.

    Args:
        x: ``(..., K)``.
        y: ``(K,)``.

    Returns:
        ``(...)``, from -1 to 1; NaN where the row or ``y`` is constant or not finite.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        r = _unit(x) @ _unit(y)
    return np.clip(r, -1.0, 1.0)


def _unit(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Centre each row and scale it to length 1; a constant row to NaN."""
    constant = x.max(axis=-1, keepdims=True) == x.min(axis=-1, keepdims=True)
    centred = np.where(constant, 0.0, x - x.mean(axis=-1, keepdims=True))
    centred /= np.abs(centred).max(axis=-1, keepdims=True)  # so that no square underflows
    centred /= np.sqrt(np.sum(centred**2, axis=-1, keepdims=True))
    return centred


def _with_mean(weights: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    """Append the mean over ``axis`` to it."""
    return np.concatenate([weights, weights.mean(axis=axis, keepdims=True)], axis=axis)


@dataclass
class _Collector:
    """Correlations with one target, utterance by utterance."""

    target: str
    aggregation: str
    ids: list[str] = field(default_factory=list)
    values: list[NDArray[np.float64]] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    missing: set[str] = field(default_factory=set)

    def add(self, attribution: Attribution) -> None:
        missing = [
            part for part in (self.target, CROSS_ATTENTION) if not has_part(attribution, part)
        ]
        if missing:
            self.left_out[attribution.id] = "no " + " and no ".join(NAMES[p] for p in missing)
            self.missing.update(missing)
            return
        values = correlate_utterance(attribution, self.target, self.aggregation)
        if self.values and values.shape != self.values[0].shape:
            raise InputError(
                f"utterance {attribution.id!r}: {_size(values)}, expected {_size(self.values[0])} "
                f"as of {self.ids[0]!r}"
            )
        self.ids.append(attribution.id)
        self.values.append(values)

    def table(self) -> CorrelationTable:
        return CorrelationTable(
            target=self.target,
            aggregation=self.aggregation if self.target == "input" else None,
            ids=tuple(self.ids),
            per_utterance=np.stack(self.values),
            left_out=dict(self.left_out),
        )


def _size(values: NDArray[Any]) -> str:
    return f"{values.shape[0] - 1} layers of {values.shape[1] - 1} heads"


def _nothing_to_correlate(store: AttributionStore, empty: Sequence[_Collector]) -> str:
    """Say which parts are missing, and which flags save them."""
    missing = [part for part in NAMES if any(part in collector.missing for collector in empty)]
    return (
        f"{store.path}: {len(store)} utterances without {' or '.join(NAMES[p] for p in missing)}, "
        f"expected a run of fairseq-generate with {flags_for(missing)}"
    )
