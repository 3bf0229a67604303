"""One utterance as the page has it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fbk_xattn.analysis.maps import (
    TARGETS,
    cross_attention_heads,
    has_part,
    input_cells,
    n_encoder_steps,
    saliency_map,
    to_encoder_steps,
)
from fbk_xattn.analysis.table import task_name
from fbk_xattn.analysis.words import word_slices, word_text
from fbk_xattn.errors import InputError
from fbk_xattn.report.figures.mel import bin_centres
from fbk_xattn.report.html.audio import SECONDS_PER_FRAME
from fbk_xattn.report.html.budget import Cost, costs_of
from fbk_xattn.report.html.packing import pack, quantise
from fbk_xattn.report.html.rows import TOKENS, RowCorrelations, correlate_in_all_rows
from fbk_xattn.report.html.scores import utterance_bleu, utterance_wer
from fbk_xattn.store import Attribution, SegmentLevel, SegmentSaliency

SPECTROGRAM_LEVELS = 64  # shades behind the maps
CORRELATION_STEPS = 1000  # of 1, in rows of correlations
UNDEFINED = -32_768


@dataclass(frozen=True)
class Overview:
    """What the table of utterances says of one; ``None`` where it is not there or undefined."""

    id: str
    task: str
    seconds: float
    reference: str
    hypothesis: str
    wer: float | None
    bleu: float | None
    correlations: Mapping[str, float | None]


@dataclass(frozen=True)
class Measured:
    """An utterance before it is known how finely its maps are quantised.

    Attributes:
        overview: Its row in the table.
        payload: What the page has of it, but for the large maps.
        cost: Bytes of it in the page.
        size_of_model: Decoder layers and heads that it has cross-attention of; 0 without any.
    """

    overview: Overview
    payload: dict[str, Any]
    cost: Cost
    size_of_model: tuple[int, int]


def measure(attribution: Attribution, aggregation: str, audio: str | None) -> Measured:
    """Analyse an utterance, and see how many bytes its large maps would take.

    Args:
        attribution: The utterance.
        aggregation: How input saliency is brought to encoder steps.
        audio: Its audio as a data URL, if there is any.

    Raises:
        InputError: Its shapes disagree, or it has NaN or infinity.
    """
    _check_features(attribution)
    tokens = attribution.tokens[attribution.content]
    n_mels = attribution.fbank.shape[1]
    saliency, range_of_cells = _saliency_maps(attribution, aggregation)
    by_rows = correlate_in_all_rows(attribution, saliency)
    words = word_slices(tokens)
    spectrogram = quantise(attribution.fbank.reshape(1, -1), SPECTROGRAM_LEVELS)
    payload: dict[str, Any] = {
        "id": attribution.id,
        "frames": attribution.fbank.shape[0],
        "mels": n_mels,
        "steps": n_encoder_steps(attribution),
        "framesPerStep": attribution.frames_per_step,
        "hz": bin_centres(n_mels).round(1).tolist(),
        "transcript": attribution.src_text,
        "tokens": list(tokens),
        "words": [[word.start, word.stop, word_text(tokens, word)] for word in words],
        "probabilities": _probabilities(attribution),
        "spectrogram": {
            "codes": pack(spectrogram.codes.reshape(attribution.fbank.shape), delta=True),
            "low": pack(spectrogram.low),
            "step": pack(spectrogram.step),
        },
        "range": range_of_cells,
        "maps": {target: quantise(values).packed() for target, values in saliency.items()},
        "correlations": {
            name: {target: _packed(found) for target, found in by_target.items()}
            for name, by_target in by_rows.items()
        },
        "audio": audio,
    }
    overall = {target: float(found.overall[-1, -1]) for target, found in by_rows[TOKENS].items()}
    weights = attribution.cross_attention
    return Measured(
        overview=_overview(attribution, overall),
        payload=payload,
        cost=_cost(attribution, payload),
        size_of_model=(0, 0) if weights is None else (weights.shape[0], weights.shape[1]),
    )


def with_maps(payload: Mapping[str, Any], attribution: Attribution, levels: int) -> dict[str, Any]:
    """Return the payload of an utterance with its large maps.

    Args:
        payload: Of :func:`measure`.
        attribution: The utterance.
        levels: How finely they are quantised.
    """
    maps: dict[str, Any] = {}
    if attribution.input_saliency is not None:
        merged = merged_levels(attribution.input_saliency)
        maps["cells"] = {
            "levels": [
                {"labels": pack(_small(level.labels), delta=True), "counts": pack(_counts(level))}
                for level in merged
            ],
            **quantise(_scores(merged, attribution.content), levels).packed(),
        }
    if attribution.cross_attention is not None:
        maps["attention"] = quantise(cross_attention_heads(attribution), levels).packed()
    return {**payload, **maps}


def merged_levels(saliency: SegmentSaliency) -> list[SegmentLevel]:
    """Return the levels with those of the same segments added up, which changes no value."""
    merged: list[SegmentLevel] = []
    for level in saliency.levels:
        for number, other in enumerate(merged):
            if np.array_equal(level.labels, other.labels):
                merged[number] = SegmentLevel(
                    other.labels,
                    other.numerator + level.numerator,
                    other.denominator + level.denominator,
                )
                break
        else:
            merged.append(level)
    return merged


def _saliency_maps(
    attribution: Attribution, aggregation: str
) -> tuple[dict[str, NDArray[np.float64]], list[float] | None]:
    """Return the maps at encoder steps by target, and the range of the input's cells."""
    maps: dict[str, NDArray[np.float64]] = {}
    limits = None
    if has_part(attribution, "input"):
        cells = input_cells(attribution)
        if cells.size:
            limits = [float(cells.min()), float(cells.max())]
        maps["input"] = to_encoder_steps(attribution, cells, aggregation)
    if has_part(attribution, "encoder"):
        maps["encoder"] = saliency_map(attribution, "encoder")
    return maps, limits


def _overview(attribution: Attribution, overall: Mapping[str, float]) -> Overview:
    texts = {name: getattr(attribution, name) for name in ("tgt_text", "tgt_lang", "hypothesis")}
    is_asr = attribution.src_lang == attribution.tgt_lang
    return Overview(
        id=attribution.id,
        task=task_name(attribution.src_lang, attribution.tgt_lang),
        seconds=attribution.fbank.shape[0] * SECONDS_PER_FRAME,
        reference=attribution.tgt_text,
        hypothesis=attribution.hypothesis,
        wer=utterance_wer(texts) if is_asr else None,
        bleu=None if is_asr else utterance_bleu(texts),
        correlations={
            target: overall[target] if np.isfinite(overall.get(target, np.nan)) else None
            for target in TARGETS
        },
    )


def _cost(attribution: Attribution, payload: Mapping[str, Any]) -> Cost:
    by_levels = np.zeros(1)
    fixed = float(_characters(payload))
    if attribution.input_saliency is not None:
        merged = merged_levels(attribution.input_saliency)
        fixed += sum(
            len(pack(_small(level.labels), delta=True)["data"]) + len(pack(_counts(level))["data"])
            for level in merged
        )
        by_levels = by_levels + costs_of(_scores(merged, attribution.content))
    if attribution.cross_attention is not None:
        weights = cross_attention_heads(attribution).astype(np.float32)
        # The scale of a row: two floats, in base64.
        fixed += weights[..., 0].size * 8 * 4 / 3
        by_levels = by_levels + costs_of(weights.reshape(-1, weights.shape[-1]))
    return Cost(fixed, tuple(np.broadcast_to(by_levels, costs_of(np.zeros((0, 1))).shape).tolist()))


def _characters(value: Any) -> int:
    """Return how many characters the texts and arrays of a payload take."""
    if isinstance(value, Mapping):
        return sum(len(name) + 6 + _characters(item) for name, item in value.items())
    if isinstance(value, list | tuple):
        return sum(2 + _characters(item) for item in value)
    return len(str(value))


def _scores(levels: list[SegmentLevel], tokens: slice) -> NDArray[np.float32]:
    """Return the scores of all segments, those of one level after those of another."""
    return np.concatenate([level.numerator[tokens] for level in levels], axis=1)


def _counts(level: SegmentLevel) -> NDArray[np.uint32]:
    return level.denominator.astype(np.uint32)


def _small(labels: NDArray[np.unsignedinteger]) -> NDArray[np.unsignedinteger]:
    small = np.uint16 if labels.max(initial=0) <= np.iinfo(np.uint16).max else np.uint32
    return labels.astype(small)


def _probabilities(attribution: Attribution) -> list[float]:
    scores = attribution.positional_scores[attribution.content].astype(np.float64)
    return [round(float(value), 4) for value in np.exp(np.minimum(scores, 0.0))]


def _packed(found: RowCorrelations) -> dict[str, Any]:
    return {
        "overall": pack(found.overall.astype(np.float32)),
        "rows": pack(_as_integers(found.rows)),
    }


def _as_integers(correlations: NDArray[np.float64]) -> NDArray[np.int16]:
    defined = np.isfinite(correlations)
    scaled = np.rint(np.where(defined, correlations, 0.0) * CORRELATION_STEPS)
    return np.where(defined, scaled, UNDEFINED).astype(np.int16)


def _check_features(attribution: Attribution) -> None:
    if not np.isfinite(attribution.fbank).all():
        raise InputError(
            f"utterance {attribution.id!r}: fbank has NaN or infinite values, expected numbers; "
            "delete its file and generate it again"
        )
