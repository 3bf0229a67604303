"""Tables of deletion and insertion, of size, and of the quality of hypotheses (paper, Table 5)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from fbk_xattn.analysis.deletion import ScoredCurve
from fbk_xattn.analysis.quality import BLEU, COMET, WER, Quality
from fbk_xattn.analysis.references import listed
from fbk_xattn.analysis.size import SIZE, SizeCurve
from fbk_xattn.analysis.table import task_name
from fbk_xattn.report.grid import Grid, Quote
from fbk_xattn.report.tables import UNDEFINED

Record = Mapping[str, object]
NOT_OF_TASK = "-"


def curve_records(curves: Iterable[tuple[str, ScoredCurve]]) -> list[Record]:
    """Return one row a step of each curve, in full precision.

    Args:
        curves: With the name of their folder.
    """
    return [
        {
            "folder": name,
            "mode": curve.mode,
            "map": curve.map_name,
            "units": curve.unit,
            "languages": _languages(curve.languages),
            "score": curve.score,
            "n_utterances": len(curve.ids),
            "auc": curve.auc,
            "better": curve.metric.better,
            "percentage": percentage,
            "value": value,
        }
        for name, curve in curves
        for percentage, value in zip(curve.percentages.tolist(), curve.scores.tolist(), strict=True)
    ]


def curve_grid(curves: Sequence[tuple[str, ScoredCurve]]) -> Grid:
    """Lay out the area under each curve, 0 to 100; in CSV the curves.

    Args:
        curves: With the name of their folder.
    """

    def caption(_: Quote) -> str:
        return (
            "Area under the curve of the score over the share of the units that are removed "
            "(deletion) or kept (insertion), from 0 to 100, most salient first. Only maps of the "
            "same units compare."
        )

    return Grid(
        caption=caption,
        label="deletion",
        header=("folder", "mode", "map", "units", "task", "utterances", "score", "AUC", "better"),
        rows=tuple(
            (
                name,
                curve.mode,
                curve.map_name,
                curve.unit,
                "all tasks" if curve.languages is None else task_name(*curve.languages),
                str(len(curve.ids)),
                curve.score,
                f"{curve.auc:.2f}",
                curve.metric.better,
            )
            for name, curve in curves
        ),
        records=tuple(curve_records(curves)),
    )


def size_records(curves: Iterable[tuple[str, SizeCurve]]) -> list[Record]:
    """Return one row a threshold of each store, in full precision.

    Args:
        curves: With the name of their store.
    """
    return [
        {
            "store": name,
            "n_utterances": len(curve.ids),
            "n_left_out": len(curve.left_out),
            "n_tokens_without_range": sum(curve.without_range.values()),
            "auc": curve.auc,
            "better": SIZE.better,
            "threshold": threshold,
            "value": value,
        }
        for name, curve in curves
        for threshold, value in zip(curve.thresholds.tolist(), curve.mean.tolist(), strict=True)
    ]


def size_grid(curves: Sequence[tuple[str, SizeCurve]]) -> Grid:
    """Lay out the size of the input saliency of each store; in CSV the curves.

    Args:
        curves: With the name of their store.
    """

    def caption(_: Quote) -> str:
        return (
            "Size of input saliency: percentage of the cells whose normalised saliency is at least "
            "a threshold, averaged over the thresholds from 0 to 1; lower is more compact."
        )

    return Grid(
        caption=caption,
        label="size",
        header=("store", "utterances", f"size {SIZE.arrow}"),
        short_header=("store", "utterances", "size"),
        rows=tuple((name, str(len(curve.ids)), f"{curve.auc:.2f}") for name, curve in curves),
        records=tuple(size_records(curves)),
    )


def quality_records(qualities: Iterable[tuple[str, Quality]]) -> list[Record]:
    """Return one row a language pair of each store, in full precision.

    A score of the other task is empty, one that is undefined NaN.

    Args:
        qualities: With the name of their store.
    """
    return [
        {
            "store": name,
            "src_lang": quality.src_lang,
            "tgt_lang": quality.tgt_lang,
            "n_utterances": len(quality.ids),
            "n_without_words": len(quality.without_words),
            "wer": quality.wer,
            "bleu": quality.bleu,
            "bleu_signature": quality.bleu_signature,
            "comet": quality.comet,
        }
        for name, quality in qualities
    ]


def quality_grid(qualities: Sequence[tuple[str, Quality]], comet_model: str | None = None) -> Grid:
    """Lay out WER of recognition, BLEU and COMET of translation (paper, Table 5).

    Args:
        qualities: With the name of their store.
        comet_model: That COMET is of, for the caption.
    """
    signatures = {q.bleu_signature for _, q in qualities if q.bleu_signature is not None}

    def caption(quote: Quote) -> str:
        parts = []
        if any(q.is_asr for _, q in qualities):
            parts.append(
                "WER in percent after the normaliser of Whisper (English, or basic for other "
                "languages)."
            )
        parts += [
            f"References without a word after it, so that each word of the hypothesis counts as "
            f"inserted: {quote(name)}, {listed([quote(i) for i in q.without_words])}."
            for name, q in qualities
            if q.without_words
        ]
        parts += [f"BLEU: {quote(signature)}." for signature in sorted(signatures)]
        if comet_model is not None and signatures:
            parts.append(f"COMET: {quote(comet_model)}.")
        return " ".join(["Quality of the hypotheses.", *parts])

    names = ("WER", "BLEU", *(["COMET"] if comet_model is not None else []))
    arrows = (WER.arrow, BLEU.arrow, COMET.arrow)
    return Grid(
        caption=caption,
        label="quality",
        header=(
            "store",
            "task",
            "utterances",
            *(f"{name} {arrow}" for name, arrow in zip(names, arrows, strict=False)),
        ),
        short_header=("store", "task", "utterances", *names),
        rows=tuple(
            (
                name,
                task_name(q.src_lang, q.tgt_lang),
                str(len(q.ids)),
                *[_cell(q.wer, 2), _cell(q.bleu, 2), _cell(q.comet, 4)][: len(names)],
            )
            for name, q in qualities
        ),
        records=tuple(quality_records(qualities)),
    )


def _cell(value: float | None, decimals: int) -> str:
    if value is None:
        return NOT_OF_TASK
    return UNDEFINED if math.isnan(value) else f"{value:.{decimals}f}"


def _languages(pair: tuple[str, str] | None) -> str:
    """Name a language pair: ``en`` for ASR, ``en-it`` for ST."""
    return "all" if pair is None else "-".join(dict.fromkeys(pair))
