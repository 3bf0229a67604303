"""Correlation of cross-attention with saliency, of each decoder layer and head (paper, Table 1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fbk_xattn.analysis.coefficients import coefficient as coefficient_of
from fbk_xattn.analysis.collecting import Collector, Progress, UtteranceMaps, collect
from fbk_xattn.analysis.maps import TARGETS
from fbk_xattn.analysis.table import CorrelationTable, Setting
from fbk_xattn.errors import InputError
from fbk_xattn.store import Attribution, AttributionStore


def correlate_utterance(
    attribution: Attribution,
    target: str,
    aggregation: str = "2d-max",
    *,
    normalize: str = "both",
    coefficient: str = "pearson",
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
        normalize: Which map is standardised, a name in
            :data:`~fbk_xattn.analysis.normalization.STANDARDISED`.
        coefficient: Name in :data:`~fbk_xattn.analysis.coefficients.COEFFICIENTS`.

    Returns:
        ``(L + 1, H + 1)`` from -1 to 1: ``[l, h]`` one head, ``[l, H]`` the mean over the heads of
        a layer, ``[L, h]`` the mean over the layers, ``[L, H]`` the mean over all. The weights are
        what is averaged, not the correlations. NaN where undefined: no content token, or a map
        that is constant once standardised (always so with one content token).

    Raises:
        InputError: Unknown target or other name, the utterance lacks a part, or a map of it has
            NaN or infinity.
    """
    setting = Setting(target, aggregation, normalize, coefficient)
    return _correlate_maps(UtteranceMaps(attribution), setting)


def correlate(
    store: AttributionStore,
    target: str,
    aggregation: str = "2d-max",
    *,
    normalize: str = "both",
    coefficient: str = "pearson",
) -> CorrelationTable:
    """Correlate cross-attention with one kind of saliency over all utterances of a store.

    Args:
        store: Utterances with cross-attention and saliency.
        target: ``"input"`` or ``"encoder"`` (encoder output).
        aggregation: Name in :data:`~fbk_xattn.analysis.aggregation.AGGREGATIONS`, for the input.
        normalize: Which map is standardised, a name in
            :data:`~fbk_xattn.analysis.normalization.STANDARDISED`.
        coefficient: Name in :data:`~fbk_xattn.analysis.coefficients.COEFFICIENTS`.

    Returns:
        The table; utterances saved without a part are in its ``left_out``.

    Raises:
        InputError: Unknown target or other name; the store is empty, has a damaged file, NaN or
            infinity, or no utterance with the target and cross-attention.

    Example:
        >>> import tempfile
        >>> from fbk_xattn.store import Attribution
        >>> rng = np.random.default_rng(0)
        >>> store = AttributionStore.create(tempfile.mkdtemp(), parameters={})
        >>> store.write(Attribution(
        ...     id="a/1", speaker="s", src_lang="en", tgt_lang="en", src_text="hi you",
        ...     tgt_text="hi you", hypothesis="hi you", tokens=("<lang:en>", "▁hi", "▁you", "</s>"),
        ...     token_ids=np.arange(4), positional_scores=np.zeros(4), score=0.0, n_prefix=1,
        ...     frames_per_step=4, fbank=np.zeros((8, 80)), encoder_saliency=rng.random((4, 2)),
        ...     cross_attention=rng.random((6, 8, 4, 2))))
        >>> table = correlate(store, "encoder")
        >>> table.mean.shape  # layers by heads, with their means
        (7, 9)
        >>> table.interval().shape  # low and high ends, from a bootstrap over utterances
        (2, 7, 9)
        >>> list(table.by_task())
        ['ASR en']
    """
    (table,) = correlate_store(store, [Setting(target, aggregation, normalize, coefficient)])
    return table


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
        absent_is_error: As for :func:`correlate_store`.
        progress: Called with the number of utterances done and of all.

    Returns:
        The tables by target, in the order of ``targets``.

    Raises:
        InputError: As for :func:`correlate`.
    """
    settings = [Setting(target, aggregation) for target in targets]
    tables = correlate_store(store, settings, absent_is_error=absent_is_error, progress=progress)
    return {table.target: table for table in tables}


def correlate_store(
    store: AttributionStore,
    settings: Sequence[Setting],
    *,
    absent_is_error: bool = True,
    progress: Progress | None = None,
) -> list[CorrelationTable]:
    """Correlate a store in several ways, reading each file once and holding one in memory.

    Args:
        store: Utterances with cross-attention and saliency.
        settings: What is correlated, and how.
        absent_is_error: Whether a target that no utterance has is an error; otherwise the result
            has no table of it, and it is an error that no target is there.
        progress: Called with the number of utterances done and of all.

    Returns:
        A table for each setting, in their order.

    Raises:
        InputError: As for :func:`correlate`.
    """
    collectors = [_HeadCollector(setting) for setting in settings]
    collect(store, collectors, absent_is_error=absent_is_error, progress=progress)
    return [collector.table() for collector in collectors if collector.ids]


def _correlate_maps(maps: UtteranceMaps, setting: Setting) -> NDArray[np.float64]:
    attention, saliency = maps.attention(setting.normalize), maps.saliency(setting)
    if saliency.size == 0:
        return np.full(attention.shape[:2], np.nan)
    flat = attention.reshape(*attention.shape[:2], -1)
    return coefficient_of(setting.coefficient).compute(flat, saliency.ravel())


@dataclass
class _HeadCollector(Collector):
    """Correlations of each layer and head in one setting, utterance by utterance."""

    languages: list[tuple[str, str]] = field(default_factory=list)
    values: list[NDArray[np.float64]] = field(default_factory=list)

    def add(self, attribution: Attribution, maps: UtteranceMaps) -> None:
        """Correlate an utterance.

        Raises:
            InputError: It has other layers or heads than those before.
        """
        values = _correlate_maps(maps, self.setting)
        if self.values and values.shape != self.values[0].shape:
            raise InputError(
                f"utterance {attribution.id!r}: {_size(values)}, expected {_size(self.values[0])} "
                f"as of {self.ids[0]!r}"
            )
        self.languages.append((attribution.src_lang, attribution.tgt_lang))
        self.values.append(values)

    def table(self) -> CorrelationTable:
        return CorrelationTable(
            target=self.setting.target,
            aggregation=self.setting.aggregation,
            ids=tuple(self.ids),
            per_utterance=np.stack(self.values),
            left_out=dict(self.left_out),
            left_out_languages=dict(self.left_out_languages),
            normalize=self.setting.normalize,
            coefficient=self.setting.coefficient,
            languages=tuple(self.languages),
            cross_attention=self.cross_attention,
        )


def _size(values: NDArray[Any]) -> str:
    return f"{values.shape[0] - 1} layers of {values.shape[1] - 1} heads"
