"""Sections on the correlation of cross-attention with saliency (paper, Tables 1 to 4 and 6)."""

from __future__ import annotations

from collections.abc import Mapping

from examples.prompts.study.measure import Explained
from examples.prompts.study.settings import TARGETS
from fbk_xattn.analysis import AGGREGATIONS, Setting
from fbk_xattn.analysis.bootstrap import Bootstrap
from fbk_xattn.analysis.comparison import check_same_utterances
from fbk_xattn.analysis.maps import NAMES
from fbk_xattn.report.grid import Grid
from fbk_xattn.report.tables import (
    describe_interval,
    head_grid,
    layer_grid,
    with_interval,
)


def by_heads(main: Explained, bootstrap: Bootstrap) -> list[Grid]:
    """Lay out layers by heads, a table a target and task (Table 1)."""
    return [
        head_grid(table, task, bootstrap)
        for target in TARGETS
        for task, table in main.tables[Setting(target)].by_task().items()
    ]


def by_layers(main: Explained, target: str, bootstrap: Bootstrap) -> list[Grid]:
    """Lay out layers by tasks (Tables 2 and 3)."""
    tables = main.tables[Setting(target)].by_task()
    return [layer_grid(tables, "task", f"layers-{target}", bootstrap)]


def by_voice(main: Explained, bootstrap: Bootstrap) -> list[Grid]:
    """Lay out the overall correlation of every task and voice."""
    groups = sorted(set(zip(main.tasks, main.speakers, strict=True)))
    members = list(zip(main.tasks, main.speakers, strict=True))
    rows = []
    for group in groups:
        chosen = [row for row, other in enumerate(members) if other == group]
        cells = []
        for target in TARGETS:
            table = main.tables[Setting(target)].only(chosen)
            low, high = table.interval(bootstrap)[:, -1, -1]
            cells.append(with_interval(table.mean[-1, -1], low, high))
        rows.append((*group, str(len(chosen)), *cells))
    return [
        Grid(
            caption=lambda _: (
                "Pearson correlation of cross-attention, all layers and heads averaged, with both "
                f"kinds of saliency (input: 2d-max). In brackets: {describe_interval(bootstrap)}."
            ),
            label="voices",
            header=("task", "voice", "utterances", *(NAMES[target] for target in TARGETS)),
            rows=tuple(rows),
        )
    ]


def by_aggregation(main: Explained, bootstrap: Bootstrap) -> list[Grid]:
    """Lay out layers by aggregation of the input saliency, a table a task (Table 4)."""
    by_task = {how: main.tables[Setting("input", how)].by_task() for how in AGGREGATIONS}
    return [
        layer_grid(
            {how: tables[task] for how, tables in by_task.items()},
            "aggregation",
            f"aggregation-{task}",
            bootstrap,
            task,
        )
        for task in next(iter(by_task.values()))
    ]


def by_probability(dev: Mapping[float, Explained], bootstrap: Bootstrap) -> list[Grid]:
    """Lay out layers by occlusion probability, a table a target and task (Table 6).

    Args:
        dev: By occlusion probability.
        bootstrap: For the intervals.

    Raises:
        InputError: They are not of the same utterances.
    """
    check_same_utterances({f"occlusion probability {p:g}": each.ids for p, each in dev.items()})
    grids = []
    for target in TARGETS:
        by_task = {p: each.tables[Setting(target)].by_task() for p, each in dev.items()}
        for task in next(iter(by_task.values())):
            columns = {f"{p:g}": tables[task] for p, tables in sorted(by_task.items())}
            label = f"probability-{target}-{task}"
            grids.append(layer_grid(columns, "occlusion probability", label, bootstrap, task))
    return grids
