"""``fbk-xattn size``: how compact input saliency is."""

from __future__ import annotations

import argparse
from pathlib import Path

from fbk_xattn.analysis.references import listed
from fbk_xattn.analysis.size import SizeCurve, size
from fbk_xattn.cli.reading import open_stores, progress
from fbk_xattn.cli.results import add_result_args, check_output, note, show
from fbk_xattn.report.scores import size_grid


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``size``."""
    parser = subparsers.add_parser(
        "size",
        help="how compact input saliency is",
        description="Print how much of the input is salient: the percentage of cells whose "
        "normalised saliency is at least 0, 0.05, ..., 1, as the area under that curve.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "stores", metavar="STORE", nargs="+", type=Path, help="attribution stores to read"
    )
    add_result_args(parser, "the curves")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the sizes; what they are without goes to standard error.

    Raises:
        InputError: Not a store, or one without input saliency, or with NaN in it.
    """
    check_output(args.output)
    curves: list[tuple[str, SizeCurve]] = []
    for name, store in open_stores(args.stores).items():
        curves.append((name, size(store, progress())))
    show(size_grid(curves), args)
    for name, curve in curves:
        if curve.left_out:
            note(
                f"{name}: {len(curve.left_out)} utterances left out without input saliency "
                f"(--explain input saves it): {listed(curve.left_out)}"
            )
        if curve.without_range:
            n_tokens = sum(curve.without_range.values())
            note(
                f"{name}: {n_tokens} tokens whose map is one number everywhere count as 0 percent, "
                f"in {listed(list(curve.without_range))}"
            )
    return 0
