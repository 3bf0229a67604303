"""``fbk-xattn correlate``: correlation of cross-attention with saliency, by layer and head."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from fbk_xattn.analysis import AGGREGATIONS, TARGETS, CorrelationTable, correlate_targets
from fbk_xattn.analysis.maps import NAMES, flags_for
from fbk_xattn.errors import InputError
from fbk_xattn.files import write_text
from fbk_xattn.report.tables import FORMATS, render
from fbk_xattn.store import AttributionStore


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``correlate``."""
    parser = subparsers.add_parser(
        "correlate",
        help="correlation of cross-attention with saliency, by layer and head",
        description="Correlate cross-attention with the saliency of the input and of the encoder "
        "output, by decoder layer and head (Pearson's r, mean over the utterances). Language tag "
        "and eos are left out.",
        allow_abbrev=False,
    )
    parser.add_argument("store", metavar="OUT", type=Path, help="attribution store to read")
    parser.add_argument(
        "--target",
        nargs="+",
        choices=TARGETS,
        help="saliency to correlate with (default: all that the store has)",
    )
    parser.add_argument(
        "--aggregation",
        choices=tuple(AGGREGATIONS),
        default="2d-max",
        help="how input saliency is brought to encoder steps (default: %(default)s)",
    )
    parser.add_argument(
        "--format",
        choices=tuple(FORMATS),
        default="markdown",
        help="format of the tables (default: %(default)s); csv has full precision",
    )
    parser.add_argument(
        "--output", metavar="FILE", type=Path, help="file to write instead of standard output"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print or write the tables; what they are without goes to standard error.

    Raises:
        InputError: Not a store, nothing to correlate in it, or no correlation is defined.
    """
    if args.output is not None and args.output.is_dir():  # known before the work rather than after
        raise InputError(f"--output {args.output}: is a folder, expected the name of a file")
    with AttributionStore.open(args.store) as store:
        targets = tuple(dict.fromkeys(args.target or TARGETS))
        tables = correlate_targets(
            store,
            targets,
            args.aggregation,
            absent_is_error=args.target is not None,
            progress=_show_progress if sys.stderr.isatty() else None,
        )
    if all(np.isnan(table.mean).all() for table in tables.values()):
        raise InputError(
            f"{args.store}: no correlation is defined for any of {_count(tables)} utterances, "
            "expected maps that vary over at least two content tokens"
        )
    text = render(tuple(tables.values()), args.format)
    if args.output is None:
        sys.stdout.write(text)
    else:
        write_text(args.output, text)
    _account(tables, targets)
    return 0


def _count(tables: Mapping[str, CorrelationTable]) -> int:
    return len({utterance_id for table in tables.values() for utterance_id in table.ids})


def _account(tables: Mapping[str, CorrelationTable], targets: tuple[str, ...]) -> None:
    """Name every utterance that a mean is without, and every target without a table."""
    for target in targets:
        if target not in tables:
            _note(f"no {NAMES[target]} in this store ({flags_for([target])} saves it)")
            continue
        table = tables[target]
        n_ids = len(table.ids)
        if undefined := table.undefined_ids:
            names = ", ".join(undefined)
            _note(
                f"{NAMES[target]}: correlation undefined for {len(undefined)} of {n_ids}: {names}"
            )
        if table.left_out:
            names = ", ".join(f"{name} ({reason})" for name, reason in table.left_out.items())
            _note(f"{NAMES[target]}: {len(table.left_out)} utterances left out: {names}")


def _note(text: str) -> None:
    print(f"fbk-xattn: note: {text}", file=sys.stderr)


def _show_progress(done: int, total: int) -> None:
    print(f"\r{done}/{total} utterances", end="\n" if done == total else "", file=sys.stderr)
