"""``fbk-xattn tables``: the paper's tables of one or more stores, in Markdown and LaTeX."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fbk_xattn.analysis import AGGREGATIONS, TARGETS, Bootstrap, CorrelationTable, Setting
from fbk_xattn.analysis.comparison import (
    PROBABILITY,
    check_same_but_probability,
    check_same_method,
    check_same_utterances,
    data_difference,
    explains,
    parameter,
    same_but_probability,
)
from fbk_xattn.analysis.quality import CometScorer, Quality, comet_scorer, quality
from fbk_xattn.cli.reading import column_names, correlated, open_stores, what_varies
from fbk_xattn.cli.results import add_manifest_arg, note, references_of
from fbk_xattn.errors import InputError
from fbk_xattn.files import write_text
from fbk_xattn.report.grid import Grid, to_latex, to_markdown
from fbk_xattn.report.scores import quality_grid
from fbk_xattn.report.tables import head_grid, layer_grid, probability_grid
from fbk_xattn.store import AttributionStore

PAPER_PROBABILITY = {"input": 0.5, "encoder": 0.7}
MARKDOWN, LATEX = "tables.md", "tables.tex"
TITLES = {
    1: "Correlation by layer and head",
    2: "Correlation with input saliency by layer",
    3: "Correlation with encoder-output saliency by layer",
    4: "Correlation by aggregation of input saliency",
    5: "Quality of the hypotheses",
    6: "Correlation by occlusion probability",
}

# Of each store by its name: a table for each setting that the store has the parts for.
Tables = Mapping[str, Mapping[Setting, CorrelationTable]]
Stores = Mapping[str, AttributionStore]
# By target: the store of each sweep that Tables 1 to 4 take, None where none has the target.
Chosen = Mapping[str, list[str | None]]
# From store and task to the name of a table or column.
Called = Callable[[str, str], str]


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``tables``."""
    parser = subparsers.add_parser(
        "tables",
        help="the paper's Tables 1 to 6, in Markdown and LaTeX",
        description="Write what Tables 1 to 6 of the paper hold, for the models, languages and "
        f"tasks of these stores, into {MARKDOWN} and {LATEX}. Stores that differ in nothing but "
        "occlusion probability make Table 6; of these, the other tables take the one with the "
        "paper's probability (0.5 for the input, 0.7 for the encoder output), or else the first.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "stores", metavar="OUT", type=Path, nargs="+", help="attribution store to read"
    )
    parser.add_argument(
        "--output", metavar="FOLDER", type=Path, required=True, help="folder to write"
    )
    parser.add_argument(
        "--comet", metavar="MODEL", help="COMET model for Table 5: a name to download, or a file"
    )
    add_manifest_arg(parser)
    parser.add_argument(
        "--seed", type=int, metavar="N", default=0, help="of the bootstrap (default: %(default)s)"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write both files and print their names.

    Raises:
        InputError: Not a store, nothing to correlate in it, stores that cannot stand side by side,
            or a folder that cannot be written.
    """
    if args.output.exists() and not args.output.is_dir():
        raise InputError(f"--output {args.output}: is a file, expected a folder")
    bootstrap = Bootstrap(seed=args.seed)
    stores = open_stores(args.stores)
    sweeps = _sweeps(stores)
    chosen = {target: [_of_paper(sweep, target) for sweep in sweeps] for target in TARGETS}
    for target, names in chosen.items():  # before the work
        check_same_method([stores[name] for name in names if name], target)
    called = column_names(stores)
    references = references_of(args.manifest)
    comet = None if args.comet is None else comet_scorer(args.comet)
    scores = _scores(stores, references, comet)
    tables = {
        name: _correlated(store, name if len(stores) > 1 else "") for name, store in stores.items()
    }
    parts: dict[int, list[Grid]] = {
        1: _by_heads(tables, chosen, called, bootstrap),
        2: _by_layers(stores, tables, chosen, "input", called, bootstrap),
        3: _by_layers(stores, tables, chosen, "encoder", called, bootstrap),
        4: _by_aggregation(tables, chosen, called, bootstrap),
        5: [quality_grid(scores, args.comet)] if scores else [],
        6: _by_probability(tables, sweeps, bootstrap),
    }
    for form, name in ((_markdown, MARKDOWN), (_latex, LATEX)):
        write_text(args.output / name, form(parts))
        print(args.output / name)
    return 0


def _correlated(store: AttributionStore, name: str) -> dict[Setting, CorrelationTable]:
    settings = [*(Setting("input", how) for how in AGGREGATIONS), Setting("encoder")]
    tables = correlated(store, name, settings, absent_is_error=False)
    return {table.setting: table for table in tables}


def _sweeps(stores: Stores) -> list[dict[str, AttributionStore]]:
    """Group the stores of one data that differ in occlusion probabilities alone, in their order."""
    sweeps: list[dict[str, AttributionStore]] = []
    for name, store in stores.items():
        for sweep in sweeps:
            if _continues(sweep, store):
                sweep[name] = store
                break
        else:
            sweeps.append({name: store})
    return sweeps


def _continues(sweep: Stores, store: AttributionStore) -> bool:
    """Tell whether a store adds a probability to a sweep.

    Parameters do not name the data, which may be other audio or another language of the same ids.
    """
    first = next(iter(sweep.values()))
    there = {pair for one in sweep.values() for pair in _probabilities(one)}
    return (
        same_but_probability(first, store)
        and not there.issuperset(_probabilities(store))
        and data_difference(first, store) is None
    )


def _probabilities(store: AttributionStore) -> list[tuple[str, object]]:
    """Return the targets that a store explains, with the occlusion probability of each."""
    return [(t, parameter(store, PROBABILITY[t])) for t in TARGETS if explains(store, t)]


def _of_paper(sweep: Stores, target: str) -> str | None:
    """Return the store with the paper's occlusion probability, or else the first of the target."""
    there = [name for name, store in sweep.items() if explains(store, target)]
    wanted = [
        name
        for name in there
        if parameter(sweep[name], PROBABILITY[target]) == PAPER_PROBABILITY[target]
    ]
    return next(iter([*wanted, *there]), None)


def _by_heads(tables: Tables, chosen: Chosen, called: Called, bootstrap: Bootstrap) -> list[Grid]:
    return [
        head_grid(part, called(name, task), bootstrap)
        for target, names in chosen.items()
        for name in names
        if name is not None and Setting(target) in tables[name]
        for task, part in tables[name][Setting(target)].by_task().items()
    ]


def _by_layers(
    stores: Stores,
    tables: Tables,
    chosen: Chosen,
    target: str,
    called: Called,
    bootstrap: Bootstrap,
) -> list[Grid]:
    columns = {
        (name, task): part
        for name in chosen[target]
        if name is not None and Setting(target) in tables[name]
        for task, part in tables[name][Setting(target)].by_task().items()
    }
    if not columns:
        return []
    named = {called(*column): part for column, part in columns.items()}
    return [layer_grid(named, what_varies(stores, columns), f"layers-{target}", bootstrap)]


def _by_aggregation(
    tables: Tables, chosen: Chosen, called: Called, bootstrap: Bootstrap
) -> list[Grid]:
    grids = []
    for name in chosen["input"]:
        if name is None or Setting("input") not in tables[name]:
            continue
        by_task = {how: tables[name][Setting("input", how)].by_task() for how in AGGREGATIONS}
        for task in next(iter(by_task.values())):
            heading = called(name, task)
            columns = {how: parts[task] for how, parts in by_task.items()}
            grids.append(
                layer_grid(columns, "aggregation", f"aggregation-{heading}", bootstrap, heading)
            )
    return grids


def _by_probability(
    tables: Tables, sweeps: list[dict[str, AttributionStore]], bootstrap: Bootstrap
) -> list[Grid]:
    grids = []
    for sweep in sweeps:
        for target in TARGETS:
            of_target: dict[Any, tuple[str, CorrelationTable]] = {}
            for name, store in sweep.items():
                if Setting(target) in tables[name]:
                    # Stores that share it differ in the probability of the other target.
                    of_target.setdefault(
                        parameter(store, PROBABILITY[target]), (name, tables[name][Setting(target)])
                    )
            if len(of_target) < 2:
                continue
            check_same_but_probability([sweep[name] for name, _ in of_target.values()], target)
            check_same_utterances({name: table.ids for name, table in of_target.values()})
            names = [name for name, _ in of_target.values()]
            tasks = next(iter(of_target.values()))[1].by_task()
            for task in tasks:
                parts = {p: (name, t.by_task()[task]) for p, (name, t) in of_target.items()}
                heading = f"{', '.join(names)}: {task}"
                grids.append(probability_grid(parts, target, bootstrap, heading))
    return grids


def _scores(
    stores: Stores, references: Mapping[str, str] | None, comet: CometScorer | None
) -> list[tuple[str, Quality]]:
    scores = []
    for name, store in stores.items():
        try:
            scores += [(name, one) for one in quality(store, references, comet)]
        except InputError as error:  # no references, which the other tables do not need
            note(f"Table 5 is without {name}: {error}")
    return scores


def _markdown(parts: Mapping[int, list[Grid]]) -> str:
    return "\n".join(
        f"## Table {number}: {TITLES[number]}\n\n"
        + (to_markdown(grids) if grids else _nothing(number))
        for number, grids in parts.items()
    )


def _latex(parts: Mapping[int, list[Grid]]) -> str:
    return "\n".join(
        f"% Table {number}: {TITLES[number]}\n"
        + (to_latex(grids) if grids else f"% {_nothing(number)}")
        for number, grids in parts.items()
    )


def _nothing(number: int) -> str:
    """Say what a table that is not there would be made of."""
    needs = {
        5: "a reference of every utterance in the store",
        6: "stores that differ in nothing but occlusion probability",
    }
    target = "encoder" if number == 3 else "input"
    default = f"a run of fairseq-generate with --explain {target} --save-cross-attention"
    return f"Not there: needs {needs.get(number, default)}.\n"
