"""The paper's findings, each as a difference that is above 0 where it holds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from examples.prompts.study.measure import Curves, Explained
from examples.prompts.study.scores import area_of, curve_statistics, in_brackets, rows_of
from fbk_xattn.analysis import Setting
from fbk_xattn.analysis.bootstrap import Bootstrap
from fbk_xattn.analysis.comparison import check_same_utterances
from fbk_xattn.analysis.differences import (
    FAILS,
    HOLDS,
    UNDECIDED,
    Estimate,
    estimate,
    means,
    with_counts,
)
from fbk_xattn.errors import InputError
from fbk_xattn.report.grid import Grid
from fbk_xattn.report.tables import describe_interval

VERDICTS = (HOLDS, FAILS, UNDECIDED)
# From mean correlations (R, L + 1, H + 1), and those of the dev split (L + 1, H + 1), to (R,).
Gain = Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]]
MapPair = tuple[str, str]


@dataclass(frozen=True)
class Finding:
    """One claim, measured task by task.

    Attributes:
        claim: In the words of the paper.
        measure: What is above 0 where it holds.
        by_task: The difference of each task.
        decimals: To print.
    """

    claim: str
    measure: str
    by_task: Mapping[str, Estimate]
    decimals: int = 3


def of_heads_to_mean(r: NDArray[np.float64], _: NDArray[np.float64]) -> NDArray[np.float64]:
    """Heads averaged (in each layer) less the mean of the heads by themselves."""
    return (r[:, :-1, -1] - r[:, :-1, :-1].mean(axis=2)).mean(axis=1)


def of_heads_to_best(r: NDArray[np.float64], dev: NDArray[np.float64]) -> NDArray[np.float64]:
    """Heads averaged less the best head, in each layer, mean over the layers."""
    layers = np.arange(r.shape[1] - 1)
    best = r[:, layers, np.nanargmax(dev[:-1, :-1], axis=1)]
    return (r[:, :-1, -1] - best).mean(axis=1)


def of_layers_to_mean(r: NDArray[np.float64], _: NDArray[np.float64]) -> NDArray[np.float64]:
    """Layers and heads averaged less the mean of the layers by themselves (heads averaged)."""
    return r[:, -1, -1] - r[:, :-1, -1].mean(axis=1)


def of_layers_to_best(r: NDArray[np.float64], dev: NDArray[np.float64]) -> NDArray[np.float64]:
    """Layers and heads averaged less the best layer (heads averaged)."""
    return r[:, -1, -1] - r[:, np.nanargmax(dev[:-1, -1]), -1]


def of_late_layers(r: NDArray[np.float64], dev: NDArray[np.float64]) -> NDArray[np.float64]:
    """Best layer of the later half less the best of the earlier half; of one layer undefined."""
    n_layers = len(dev) - 1
    half = n_layers // 2
    if half == 0:
        return np.full(len(r), np.nan)
    late = n_layers - half + np.nanargmax(dev[n_layers - half : n_layers, -1])
    return r[:, late, -1] - r[:, np.nanargmax(dev[:half, -1]), -1]


HEADS, LAYERS, LATE = "averaging heads helps", "averaging layers helps", "late layers are best"
GAINS: tuple[tuple[str, str, Gain], ...] = (
    (HEADS, "heads of a layer averaged, less the mean of its heads", of_heads_to_mean),
    (HEADS, "heads of a layer averaged, less its best head", of_heads_to_best),
    (LAYERS, "all layers averaged, less the mean of the layers", of_layers_to_mean),
    (LAYERS, "all layers averaged, less the best layer", of_layers_to_best),
    (LATE, "best of the later half, less best of the earlier half", of_late_layers),
)
# Better map first.
ORDERS: tuple[tuple[str, MapPair], ...] = (
    ("2d-max beats 2d-avg in deletion", ("delete-2d-max", "delete-2d-avg")),
    (
        "cross-attention's deletion is below the aggregated map's",
        ("delete-2d-max", "delete-cross-attention"),
    ),
    ("the aggregated map's deletion is below the full map's", ("delete-input", "delete-2d-max")),
)
BASELINES: tuple[tuple[str, MapPair], ...] = (
    ("the full map beats a random one", ("delete-input", "delete-random")),
    ("the aggregated map beats a random one", ("delete-2d-max", "delete-random-frames")),
    ("cross-attention beats a random map", ("delete-cross-attention", "delete-random-frames")),
    ("the encoder-output map beats a random one", ("delete-encoder", "delete-random-encoder")),
)


def findings(
    main: Explained,
    dev: Mapping[str, Explained],
    curves: Mapping[str, Curves],
    bootstrap: Bootstrap,
) -> list[Finding]:
    """Measure every claim on every task.

    Args:
        main: Of the test split.
        dev: Of the dev split, by target: where the best head and layer are chosen, as the best on
            the utterances that they are then measured on would be too good.
        curves: Of the test split, by name.
        bootstrap: Over the utterances of a task, the same for both sides of a difference.

    Raises:
        InputError: Curves that are compared are of different utterances, or a task has no
            utterance in the dev split.
    """
    tasks = sorted(set(main.tasks))
    names = {"input": "input", "encoder": "encoder output"}
    found = [
        Finding(
            claim,
            f"{measure} ({name})",
            {task: _of_table(main, dev[target], target, task, gain, bootstrap) for task in tasks},
        )
        for claim, measure, gain in GAINS
        for target, name in names.items()
    ]
    found.append(
        Finding(
            "correlations with the encoder output exceed those with the input",
            "all layers and heads averaged, encoder output less input (2d-max)",
            {task: _encoder_less_input(main, task, bootstrap) for task in tasks},
        )
    )
    found += [
        Finding(
            claim,
            f"area of deletion, {better.removeprefix('delete-')} less "
            f"{worse.removeprefix('delete-')} (for BLEU the other way round)",
            {
                task: deletion_gain(curves[better], curves[worse], task, bootstrap)
                for task in sorted(set(curves[better].tasks))
            },
            decimals=1,
        )
        for claim, (better, worse) in (*ORDERS, *BASELINES)
    ]
    return found


def deletion_gain(better: Curves, worse: Curves, task: str, bootstrap: Bootstrap) -> Estimate:
    """Return how much more the first map's deletion harms: above 0 where it is the better map.

    Raises:
        InputError: They are of different utterances.
    """
    check_same_utterances({"one map": better.ids, "another map": worse.ids})
    (score, one), (_, other) = (curve_statistics(each, task) for each in (better, worse))
    area = area_of(score, better.percentages)
    sign = -1.0 if score == "bleu" else 1.0
    both = np.stack([one, other], axis=1)
    return estimate(both, lambda sums: sign * (area(sums[:, 0]) - area(sums[:, 1])), bootstrap)


def _of_table(
    main: Explained, dev: Explained, target: str, task: str, gain: Gain, bootstrap: Bootstrap
) -> Estimate:
    if task not in dev.tasks:
        raise InputError(f"{task}: no utterance in the dev split, expected some of every task")
    setting = Setting(target)
    r = main.tables[setting].per_utterance[rows_of(main.tasks, task)]
    on_dev = dev.tables[setting].by_task()[task].mean
    return estimate(with_counts(r), lambda sums: gain(means(sums), on_dev), bootstrap)


def _encoder_less_input(main: Explained, task: str, bootstrap: Bootstrap) -> Estimate:
    rows = rows_of(main.tasks, task)
    encoder, of_input = (
        main.tables[Setting(target)].per_utterance[rows, -1, -1] for target in ("encoder", "input")
    )
    return estimate(with_counts(encoder - of_input), means, bootstrap)


def findings_section(found: Sequence[Finding], bootstrap: Bootstrap) -> list[Grid]:
    """Lay out the claims with their differences and verdicts, and how often each verdict is."""
    tasks = list(dict.fromkeys(task for finding in found for task in finding.by_task))
    rules = {row for row in range(1, len(found)) if found[row].claim != found[row - 1].claim}
    return [
        Grid(
            caption=lambda _: (
                "Each claim as a difference that is above 0 where it holds, with its "
                f"{describe_interval(bootstrap)}, both sides resampled together; the best "
                "head or layer is the best one of the dev split. "
                f"*{HOLDS}*: the interval is above 0; *{FAILS}*: below; *{UNDECIDED}*: 0 is in it. "
                "Correlations, or points of the area under the deletion curve. Last column: tasks "
                f"by verdict ({', '.join(VERDICTS)})."
            ),
            label="findings",
            header=("claim", "difference", *tasks, "tasks"),
            rows=tuple(
                (
                    finding.claim,
                    finding.measure,
                    *(_cell(finding.by_task.get(task), finding.decimals) for task in tasks),
                    " / ".join(
                        str(sum(e.verdict == verdict for e in finding.by_task.values()))
                        for verdict in VERDICTS
                    ),
                )
                for finding in found
            ),
            rules=frozenset(rules),
        )
    ]


def _cell(value: Estimate | None, decimals: int) -> str:
    return "-" if value is None else f"{in_brackets(value, decimals)} {value.verdict}"
