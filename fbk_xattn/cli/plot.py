"""``fbk-xattn plot``: saliency maps and cross-attention of utterances as figures."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from fbk_xattn.analysis import AGGREGATIONS
from fbk_xattn.errors import InputError
from fbk_xattn.report.plots import SUFFIXES, plot_attribution
from fbk_xattn.store import Attribution, AttributionStore


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``plot``."""
    parser = subparsers.add_parser(
        "plot",
        help="saliency maps and cross-attention of utterances as figures",
        description="Draw input saliency, encoder-output saliency and cross-attention of "
        "utterances, one figure an utterance, and print the files written.",
        allow_abbrev=False,
    )
    parser.add_argument("store", metavar="OUT", type=Path, help="attribution store to read")
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--id", nargs="+", metavar="ID", help="utterances to draw")
    which.add_argument("--all", action="store_true", help="draw every utterance of the store")
    parser.add_argument(
        "--output",
        metavar="FILE|FOLDER",
        default=".",
        help=f"file ({', '.join(SUFFIXES)}) for one utterance, or folder for files named after the "
        "ids with / replaced by _ (default: the current folder)",
    )
    for name in ("layers", "heads"):
        parser.add_argument(
            f"--{name}",
            nargs="+",
            type=int,
            metavar="N",
            help=f"{name} that cross-attention is averaged over, from 1 (default: all)",
        )
    parser.add_argument(
        "--aggregation",
        choices=tuple(AGGREGATIONS),
        default="2d-max",
        help="how input saliency is brought to encoder steps (default: %(default)s)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the figures and print their names.

    Returns:
        0, or 1 when utterances of ``--all`` could not be drawn; standard error says why.

    Raises:
        InputError: Not a store, an unknown id, layer or head, or a place that cannot be written.
    """
    layers, heads = _from_zero("--layers", args.layers), _from_zero("--heads", args.heads)
    with AttributionStore.open(args.store) as store:
        ids = _chosen_ids(store, args.id)
        files = _files(store, ids, args.output)
        if layers or heads:
            _check_heads(store.read(ids[0]), layers, heads)
        n_failed = 0
        for utterance_id, file in files.items():
            try:
                plot_attribution(
                    store.read(utterance_id),
                    file,
                    aggregation=args.aggregation,
                    layers=layers,
                    heads=heads,
                )
            except InputError as error:
                if not args.all:
                    raise
                print(f"fbk-xattn: not drawn: {error}", file=sys.stderr)
                n_failed += 1
            else:
                print(file, flush=True)
    if n_failed:
        print(f"fbk-xattn: {n_failed} of {len(files)} utterances not drawn", file=sys.stderr)
    return 1 if n_failed else 0


def _chosen_ids(store: AttributionStore, asked: Sequence[str] | None) -> list[str]:
    """Return the ids to draw, without repetition, all of them in the store."""
    there = store.ids()
    if not there:
        raise InputError(f"{store.path}: no utterance in this store, expected at least one")
    ids = there if asked is None else list(dict.fromkeys(asked))
    known = set(there)
    for utterance_id in ids:
        if utterance_id not in known:
            raise InputError(
                f"--id {utterance_id!r}: not among the {len(there)} utterances of {store.path}, "
                f"expected for example {', '.join(there[:3])}"
            )
    return ids


def _files(store: AttributionStore, ids: Sequence[str], output: str) -> dict[str, Path]:
    """Return the file of each utterance, each its own."""
    path = Path(output)
    if path.suffix.lower() in SUFFIXES and not path.is_dir():
        if len(ids) > 1:
            raise InputError(
                f"--output {output}: one file for {len(ids)} utterances, expected a folder"
            )
        return {ids[0]: path}
    if path.suffix and not path.is_dir() and not output.endswith(os.sep):
        raise InputError(
            f"--output {output}: expected a name ending in {', '.join(SUFFIXES)}, or a folder "
            f"(a new one with a dot in its name ends in {os.sep})"
        )
    names = [utterance_id.replace("/", "_") for utterance_id in ids]
    if len(set(names)) < len(names):
        # Ids such as a/b and a_b would share a file; the names of the store's files are distinct.
        names = [store.file(utterance_id).stem for utterance_id in ids]
    return {
        utterance_id: path / f"{name}.png" for utterance_id, name in zip(ids, names, strict=True)
    }


def _check_heads(
    attribution: Attribution, layers: list[int] | None, heads: list[int] | None
) -> None:
    """Check the numbers against one utterance, all those of a store being of one model."""
    if attribution.cross_attention is None:
        return
    n_layers, n_heads = attribution.cross_attention.shape[:2]
    for flag, chosen, n in (("--layers", layers, n_layers), ("--heads", heads, n_heads)):
        if chosen and chosen[-1] >= n:
            raise InputError(f"{flag} {chosen[-1] + 1}: expected 1 to {n}, as the model has")


def _from_zero(flag: str, numbers: Sequence[int] | None) -> list[int] | None:
    """Turn numbers counted from 1 into indices, each once and in order."""
    if numbers is None:
        return None
    for number in numbers:
        if number < 1:
            raise InputError(f"{flag} {number}: expected numbers from 1")
    return sorted({number - 1 for number in numbers})
