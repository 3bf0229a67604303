"""``fbk-xattn agreement``: how alike the saliency maps of two stores are."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from fbk_xattn.analysis import AGGREGATIONS, TARGETS
from fbk_xattn.analysis.agreement import Agreement, agreement
from fbk_xattn.analysis.comparison import different_parameters, explains
from fbk_xattn.cli.reading import check_aggregation, open_stores, progress
from fbk_xattn.cli.results import add_result_args, check_output, note, show
from fbk_xattn.errors import InputError
from fbk_xattn.report.agreement import agreement_grid
from fbk_xattn.store import AttributionStore


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``agreement``."""
    parser = subparsers.add_parser(
        "agreement",
        help="how alike the saliency maps of two stores are, token by token",
        description="Print the Pearson correlation of the maps of each token in a first store with "
        "those in others of the same model and utterances. Stores that differ in --seed alone tell "
        "how far the maps have converged; in --explanation-precision, what precision costs.",
        allow_abbrev=False,
    )
    parser.add_argument("reference", metavar="OUT", type=Path, help="attribution store to read")
    parser.add_argument(
        "others", metavar="OTHER", type=Path, nargs="+", help="stores to compare with the first"
    )
    parser.add_argument(
        "--target", choices=TARGETS, help="kind of saliency (default: all that all stores have)"
    )
    parser.add_argument(
        "--aggregation",
        choices=tuple(AGGREGATIONS),
        help="compare input saliency at encoder steps, aggregated like this (default: its cells)",
    )
    add_result_args(parser, "the correlation of every token")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the table; tokens and utterances that it is without go to standard error.

    Raises:
        InputError: Not a store, stores of other models, features or utterances, or nothing to
            compare.
    """
    check_output(args.output)
    (first, reference), *others = open_stores([args.reference, *args.others]).items()
    targets = [args.target] if args.target else _shared_targets([reference, *dict(others).values()])
    check_aggregation(args.aggregation, targets)
    found: list[tuple[str, Agreement]] = []
    differences = {}
    for name, store in others:
        pair = f"{first}, {name}"
        differences[pair] = different_parameters(reference, store, targets)
        for target in targets:
            each = agreement(reference, store, target, args.aggregation, progress())
            found.append((pair, each))
            if each.n_undefined:
                note(f"{pair}: {target}: {each.n_undefined} tokens whose map is one number")
    show(agreement_grid(found, differences), args)
    return 0


def _shared_targets(stores: Sequence[AttributionStore]) -> list[str]:
    """Return the targets that all stores explained.

    Raises:
        InputError: There is none.
    """
    targets = [t for t in TARGETS if all(explains(store, t) for store in stores)]
    if not targets:
        each = (
            f"{store.path} has "
            + (" and ".join(t for t in TARGETS if explains(store, t)) or "none")
            for store in stores
        )
        raise InputError(
            f"no saliency that all stores have ({', '.join(each)}), expected runs of "
            "fairseq-generate with the same --explain"
        )
    return targets
