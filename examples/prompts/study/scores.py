"""Sections on hypotheses, deletion and size."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from examples.prompts.study.measure import Curves, Explained
from examples.prompts.study.settings import DELETED, INSERTED
from fbk_xattn.analysis.bootstrap import Bootstrap
from fbk_xattn.analysis.differences import Estimate, Statistic, estimate, means, with_counts
from fbk_xattn.analysis.metric import area
from fbk_xattn.analysis.quality import whisper_normalizer
from fbk_xattn.analysis.size import THRESHOLDS
from fbk_xattn.analysis.text_scores import usual_score
from fbk_xattn.analysis.text_statistics import SUMMED_SCORES, statistics
from fbk_xattn.report.grid import Grid, Quote
from fbk_xattn.report.tables import UNDEFINED, describe_interval

NOT_OF_TASK = "-"
ALL_VOICES = "all"


def in_brackets(value: Estimate, decimals: int = 1) -> str:
    """Return a number with its interval, or that it is undefined."""
    if np.isnan(value.value):
        return UNDEFINED
    number = f"{value.value:z.{decimals}f}"
    if np.isnan(value.low):
        return number
    return f"{number} [{value.low:z.{decimals}f}, {value.high:z.{decimals}f}]"


def rows_of(tasks: Sequence[str], task: str) -> list[int]:
    """Return the utterances of a task."""
    return [row for row, other in enumerate(tasks) if other == task]


def quality_section(main: Explained, bootstrap: Bootstrap) -> list[Grid]:
    """Lay out WER and BLEU of every task and voice (paper, Table 5)."""
    rows: list[tuple[str, ...]] = []
    rules: set[int] = set()
    for task in sorted(set(main.tasks)):
        of_task = rows_of(main.tasks, task)
        voices = sorted({main.speakers[row] for row in of_task})
        groups = {voice: [r for r in of_task if main.speakers[r] == voice] for voice in voices}
        if len(groups) > 1:
            groups[ALL_VOICES] = of_task
        if rows:
            rules.add(len(rows))
        for voice, chosen in groups.items():
            is_asr, score = _quality(main, chosen, bootstrap)
            cells = (in_brackets(score), NOT_OF_TASK)
            rows.append((task, voice, str(len(chosen)), *(cells if is_asr else cells[::-1])))
    return [
        Grid(
            caption=lambda quote: (
                "Quality of the hypotheses of the test split. WER in percent after the normaliser "
                "of Whisper (English, or basic for other languages; lower is better), BLEU as "
                f"{quote('sacrebleu')} computes it by default (higher is better). In brackets: "
                f"{describe_interval(bootstrap)}."
            ),
            label="quality",
            header=("task", "voice", "utterances", "WER", "BLEU"),
            rows=tuple(rows),
            rules=frozenset(rules),
        )
    ]


def _quality(main: Explained, chosen: list[int], bootstrap: Bootstrap) -> tuple[bool, Estimate]:
    source, target = main.languages[chosen[0]]
    is_asr = source == target
    normalize = whisper_normalizer(target) if is_asr else str
    sums = statistics(
        "wer" if is_asr else "bleu",
        [normalize(main.references[row]) for row in chosen],
        [[normalize(main.hypotheses[row])] for row in chosen],
    )
    score = SUMMED_SCORES["wer" if is_asr else "bleu"].score
    return is_asr, estimate(sums[:, 0], score, bootstrap)


def curve_statistics(curves: Curves, task: str) -> tuple[str, NDArray[np.float64]]:
    """Return the score of a task, and what it is a function of at every step, ``(U, P, K)``."""
    rows = rows_of(curves.tasks, task)
    score = usual_score(*curves.languages[rows[0]])
    return score, statistics(
        score, [curves.references[r] for r in rows], [curves.hypotheses[r] for r in rows]
    )


def area_of(score: str, percentages: NDArray[np.int64]) -> Statistic:
    """Return the function from sums ``(R, P, K)`` to the area under the curve, ``(R,)``."""

    def statistic(sums: NDArray[np.float64]) -> NDArray[np.float64]:
        heights = SUMMED_SCORES[score].score(sums)
        return np.array([area(percentages, curve) for curve in heights])

    return statistic


def auc(curves: Curves, task: str, bootstrap: Bootstrap) -> Estimate:
    """Return the area under the curve of a task."""
    score, totals = curve_statistics(curves, task)
    return estimate(totals, area_of(score, curves.percentages), bootstrap)


def deletion_section(curves: dict[str, Curves], bootstrap: Bootstrap) -> list[Grid]:
    """Lay out the area under the curve of every map and task.

    Args:
        curves: By name, those of ``DELETED`` and ``INSERTED`` among them.
        bootstrap: For the intervals.
    """
    names = {**DELETED, **INSERTED}
    tasks = sorted({task for name in names for task in curves[name].tasks})
    areas = {(name, task): auc(curves[name], task, bootstrap) for name in names for task in tasks}
    best = set()
    for column, task in enumerate(tasks, start=1):
        sign = -1.0 if _is_translation(curves["delete-input"], task) else 1.0
        values = [sign * areas[name, task].value for name in DELETED]
        best.add((int(np.nanargmax(values)), column))
    plain = ("nothing removed", *(_score_at(curves["delete-input"], t, 0) for t in tasks))
    nothing_left = (
        "everything removed",
        *(_score_at(curves["delete-input"], t, -1) for t in tasks),
    )
    return [
        Grid(
            caption=lambda _: (
                "Area under the curve of the score over the share of the units that is removed "
                "(deletion) or kept (insertion), most salient first, 0 to 100. The score is WER "
                "cut at 100 for ASR and BLEU for ST, of texts as they are. In deletion, a better "
                "map has a higher area of WER and a lower one of BLEU; in insertion the other way "
                "round. The best map in deletion is marked; the last rows are scores, not areas. "
                f"In brackets: {describe_interval(bootstrap)}."
            ),
            label="deletion",
            header=(
                "map, units",
                *(f"{t} ({_score_name(curves['delete-input'], t)})" for t in tasks),
            ),
            rows=(
                *(
                    (title, *(in_brackets(areas[name, task]) for task in tasks))
                    for name, title in names.items()
                ),
                plain,
                nothing_left,
            ),
            best=frozenset(best),
            rules=frozenset({len(DELETED), len(names)}),
        )
    ]


def deletion_by_probability(
    curves: dict[tuple[float, str], Curves], bootstrap: Bootstrap
) -> list[Grid]:
    """Lay out the area under the deletion curve by occlusion probability, a table a target.

    Args:
        curves: By occlusion probability and target.
        bootstrap: For the intervals.
    """
    grids = []
    for target, what in (("input", "input map (cells)"), ("encoder", "encoder-output map")):
        about = (
            f"Area under the deletion curve of the {what} on the dev split, by occlusion "
            "probability; scores as under Deletion, the best one of each task marked. In "
            f"brackets: {describe_interval(bootstrap)}."
        )
        of_target = {p: each for (p, other), each in sorted(curves.items()) if other == target}
        first = next(iter(of_target.values()))
        tasks = sorted(set(first.tasks))
        best: set[tuple[int, int]] = set()
        areas = {(p, t): auc(each, t, bootstrap) for p, each in of_target.items() for t in tasks}
        for column, task in enumerate(tasks, start=1):
            sign = -1.0 if _is_translation(first, task) else 1.0
            best.add((int(np.nanargmax([sign * areas[p, task].value for p in of_target])), column))
        rows = [(f"{p:g}", *(in_brackets(areas[p, task]) for task in tasks)) for p in of_target]
        grids.append(
            Grid(
                caption=partial(_said, about),
                label=f"deletion-probability-{target}",
                header=("probability", *(f"{t} ({_score_name(first, t)})" for t in tasks)),
                rows=tuple(rows),
                best=frozenset(best),
            )
        )
    return grids


def size_section(main: Explained, bootstrap: Bootstrap) -> list[Grid]:
    """Lay out how compact the input maps are, task by task."""
    areas = np.array([area(THRESHOLDS, curve) for curve in main.size])
    tasks = sorted(set(main.tasks))
    rows = [(task, np.array(rows_of(main.tasks, task))) for task in tasks]
    return [
        Grid(
            caption=lambda _: (
                "Size of the input saliency: percentage of the cells whose normalised saliency is "
                "at least a threshold, averaged over the thresholds from 0 to 1; lower is more "
                f"compact. In brackets: {describe_interval(bootstrap)}."
            ),
            label="size",
            header=("task", "utterances", "size"),
            rows=tuple(
                (
                    task,
                    str(len(chosen)),
                    in_brackets(estimate(with_counts(areas[chosen]), means, bootstrap), 2),
                )
                for task, chosen in rows
            ),
        )
    ]


def _said(text: str, _: Quote) -> str:
    return text


def _is_translation(curves: Curves, task: str) -> bool:
    source, target = curves.languages[rows_of(curves.tasks, task)[0]]
    return source != target


def _score_name(curves: Curves, task: str) -> str:
    return "BLEU" if _is_translation(curves, task) else "WER"


def _score_at(curves: Curves, task: str, step: int) -> str:
    score, totals = curve_statistics(curves, task)
    return f"{float(SUMMED_SCORES[score].score(totals.sum(axis=0))[step]):.1f}"
