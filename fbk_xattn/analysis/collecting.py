"""One reading of a store for everything that is correlated, one utterance in memory at a time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fbk_xattn.analysis.maps import (
    CROSS_ATTENTION,
    NAMES,
    cross_attention_heads,
    flags_for,
    has_part,
    input_cells,
    saliency_map,
    stored_cross_attention,
    to_encoder_steps,
)
from fbk_xattn.analysis.normalization import STANDARDISED, frame_wise, mean_std
from fbk_xattn.analysis.table import Setting
from fbk_xattn.analysis.words import join_rows, word_slices
from fbk_xattn.errors import InputError
from fbk_xattn.store import Attribution, AttributionStore

Progress = Callable[[int, int], None]


class UtteranceMaps:
    """The two maps of an utterance as settings want them, each step of the work done once."""

    def __init__(self, attribution: Attribution, words: str | None = None) -> None:
        """Take an utterance with cross-attention.

        Args:
            attribution: The utterance.
            words: ``mean`` or ``max``, how the rows of tokens are joined to those of words, after
                cross-attention was averaged and saliency aggregated, and before either is
                standardised; by default rows are tokens.

        Raises:
            InputError: It has none, or its shape is wrong, or it has NaN or infinity, or there is
                no such joining.
        """
        self._attribution = attribution
        self._words = words
        attention = _with_margins(cross_attention_heads(attribution))
        if words is not None:
            attention = np.moveaxis(self._joined(np.moveaxis(attention, 2, 0)), 0, 2)
        self._attention = {False: attention}
        self._saliency: dict[tuple[str, str | None], NDArray[np.float64]] = {}
        self._cells: NDArray[np.float32] | None = None

    def attention(self, normalize: str) -> NDArray[np.float64]:
        """Return the cross-attention ``(L + 1, H + 1, N, T')`` with its means over heads, layers.

        Args:
            normalize: Name in :data:`~fbk_xattn.analysis.normalization.STANDARDISED`.
        """
        wanted = "cross-attention" in STANDARDISED[normalize]
        if wanted not in self._attention:
            self._attention[wanted] = frame_wise(self._attention[False])
        return self._attention[wanted]

    def saliency(self, setting: Setting) -> NDArray[np.float64]:
        """Return the saliency ``(N, T')``.

        Raises:
            InputError: The utterance lacks it, its shape is wrong, or it has NaN or infinity.
        """
        key = (setting.target, setting.aggregation)
        if key not in self._saliency:
            if setting.target == "encoder" or setting.aggregation is None:
                self._saliency[key] = saliency_map(self._attribution, setting.target)
            else:
                if self._cells is None:
                    self._cells = input_cells(self._attribution)
                self._saliency[key] = to_encoder_steps(
                    self._attribution, self._cells, setting.aggregation
                )
            if self._words is not None:
                self._saliency[key] = self._joined(self._saliency[key])
        saliency = self._saliency[key]
        return mean_std(saliency) if "saliency" in STANDARDISED[setting.normalize] else saliency

    def _joined(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """Join ``(N, ...)`` to one row a word."""
        tokens = self._attribution.tokens[self._attribution.content]
        joined = join_rows(rows, word_slices(tokens), self._words or "")
        return joined.astype(np.float64, copy=False)


@dataclass
class Collector(ABC):
    """What is computed of the utterances of a store in one setting.

    Attributes:
        setting: What is correlated, and how.
        ids: The utterances so far.
        left_out: Those saved without a part: id to reason.
        left_out_languages: The languages spoken and of the hypothesis of these, by id.
        missing: The parts that were missing, keys of :data:`~fbk_xattn.analysis.maps.NAMES`.
        cross_attention: What was stored of it, a name in
            :data:`~fbk_xattn.analysis.maps.STORED_CROSS_ATTENTION`.
    """

    setting: Setting
    ids: list[str] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    left_out_languages: dict[str, tuple[str, str]] = field(default_factory=dict)
    missing: set[str] = field(default_factory=set)
    cross_attention: str = "weights"

    @abstractmethod
    def add(self, attribution: Attribution, maps: UtteranceMaps) -> None:
        """Take an utterance that has all parts; its id is appended by the caller."""

    def wants(self, attribution: Attribution) -> bool:
        """Tell whether the utterance has what is correlated; otherwise note what it lacks."""
        parts = (self.setting.target, CROSS_ATTENTION)
        missing = [part for part in parts if not has_part(attribution, part)]
        if missing:
            self.left_out[attribution.id] = "no " + " and no ".join(NAMES[p] for p in missing)
            self.left_out_languages[attribution.id] = (attribution.src_lang, attribution.tgt_lang)
            self.missing.update(missing)
        return not missing


def collect(
    store: AttributionStore,
    collectors: Sequence[Collector],
    *,
    absent_is_error: bool = True,
    progress: Progress | None = None,
    words: str | None = None,
) -> None:
    """Give every utterance of a store to the collectors.

    Args:
        store: To read.
        collectors: What to compute; they share what an utterance's maps have in common.
        absent_is_error: Whether it is an error that a collector gets no utterance; otherwise, that
            none of them does.
        progress: Called with the number of utterances done and of all.
        words: How rows are joined to those of words, see :class:`UtteranceMaps`; not by default.

    Raises:
        InputError: The store is empty, has a damaged file, NaN or infinity, or no utterance with
            the parts that are wanted.
    """
    ids = store.ids()
    if not ids:
        raise InputError(f"{store.path}: no utterance in this store, expected at least one")
    for collector in collectors:
        collector.cross_attention = stored_cross_attention(store)
    for number, utterance_id in enumerate(ids, start=1):
        attribution = store.read(utterance_id)
        wanting = [collector for collector in collectors if collector.wants(attribution)]
        if wanting:
            maps = UtteranceMaps(attribution, words)
            for collector in wanting:
                collector.add(attribution, maps)
                collector.ids.append(attribution.id)
        if progress:
            progress(number, len(ids))
    empty = [collector for collector in collectors if not collector.ids]
    if empty and (absent_is_error or len(empty) == len(collectors)):
        missing = set().union(*(collector.missing for collector in empty))
        raise _nothing_to_correlate(store, missing)


def _with_margins(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Append to ``(L, H, ...)`` the mean over the heads, and to the result that over the layers."""
    L, H = weights.shape[:2]
    whole = np.empty((L + 1, H + 1, *weights.shape[2:]))
    whole[:L, :H] = weights
    weights.mean(axis=1, out=whole[:L, H])
    whole[:L].mean(axis=0, out=whole[L])
    return whole


def _nothing_to_correlate(store: AttributionStore, missing: Collection[str]) -> InputError:
    """Say which parts the utterances lack, and which flags save them."""
    parts = [part for part in NAMES if part in missing]
    return InputError(
        f"{store.path}: {len(store)} utterances without {' or '.join(NAMES[p] for p in parts)}, "
        f"expected a run of fairseq-generate with {flags_for(parts)}"
    )
