"""``fbk-xattn evaluate``: scores of deletion and insertion."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

from fbk_xattn.analysis.comparison import check_same_decoding
from fbk_xattn.analysis.deletion import ScoredCurve, evaluate
from fbk_xattn.analysis.references import listed
from fbk_xattn.analysis.text_scores import TEXT_SCORES
from fbk_xattn.cli.reading import check_named_once
from fbk_xattn.cli.results import (
    add_manifest_arg,
    add_result_args,
    check_output,
    note,
    note_rows_not_there,
    references_of,
    show,
)
from fbk_xattn.report.scores import curve_grid
from fbk_xattn.store import CurveStore


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``evaluate``."""
    parser = subparsers.add_parser(
        "evaluate",
        help="scores of deletion and insertion (area under the curve)",
        description="Score what fairseq-generate --deletion or --insertion decoded, and print the "
        "area under the curve from 0 to 100. Texts are scored as they are: neither lower-cased nor "
        "without punctuation.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "folders", metavar="OUT", nargs="+", type=Path, help="folders of --deletion or --insertion"
    )
    parser.add_argument(
        "--score",
        nargs="+",
        choices=tuple(TEXT_SCORES),
        help="scores of all utterances together: wer, wer_max (cut at 100) or bleu (default: each "
        "language pair apart, with wer_max for ASR and bleu for ST)",
    )
    add_manifest_arg(parser)
    add_result_args(parser, "the curves")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the areas; folders of different utterances are noted on standard error.

    Raises:
        InputError: Not a folder of deletion or insertion or an empty one, folders that were decoded
            with other flags, an utterance without reference, or a file that cannot be written.
    """
    check_output(args.output)
    show(curve_grid(scored_curves(args)), args)
    return 0


def scored_curves(args: argparse.Namespace) -> list[tuple[str, ScoredCurve]]:
    """Score the folders, and note on standard error what some of them lack.

    Args:
        args: With ``folders``, ``score`` and ``manifest``, as of this command.

    Returns:
        Curves with the names of their folders.

    Raises:
        InputError: As for :func:`run`, but for the file.
    """
    references = references_of(args.manifest)
    check_named_once(args.folders)
    stores = [CurveStore.open(folder) for folder in args.folders]
    check_same_decoding(stores)
    scores = None if args.score is None else list(dict.fromkeys(args.score))
    curves = [
        (str(store.path), curve)
        for store in stores
        for curve in evaluate(store, scores, references)
    ]
    note_differences(stores, references)
    return curves


def note_differences(
    stores: Sequence[CurveStore], references: Mapping[str, str] | None = None
) -> None:
    """Say which folders lack utterances that others have: their areas do not compare."""
    ids = {str(store.path): set(store.ids()) for store in stores}
    everything = set().union(*ids.values())
    for name, there in ids.items():
        note_rows_not_there(name, references, there)
        if missing := sorted(everything - there):
            note(f"{name}: without {len(missing)} of {len(everything)}: {listed(missing)}")
