"""``fbk-xattn quality``: WER, BLEU and COMET of the hypotheses of stores."""

from __future__ import annotations

import argparse
from pathlib import Path

from fbk_xattn.analysis.quality import Quality, comet_scorer, quality
from fbk_xattn.cli.reading import open_stores
from fbk_xattn.cli.results import (
    add_manifest_arg,
    add_result_args,
    check_output,
    note,
    note_rows_not_there,
    references_of,
    show,
)
from fbk_xattn.report.scores import quality_grid


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``quality``."""
    parser = subparsers.add_parser(
        "quality",
        help="WER, BLEU and COMET of the hypotheses",
        description="Score the hypotheses of attribution stores against their references, each "
        "language pair apart: WER after the normaliser of Whisper for ASR, BLEU (and COMET) for "
        "ST.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "stores", metavar="STORE", nargs="+", type=Path, help="attribution stores to read"
    )
    parser.add_argument(
        "--comet",
        metavar="MODEL",
        help="COMET model for ST: a name that can be downloaded, such as Unbabel/wmt22-comet-da, "
        "or a checkpoint file; needs the extra 'comet' (default: no COMET)",
    )
    parser.add_argument(
        "--comet-gpus",
        type=int,
        default=0,
        metavar="N",
        help="GPUs to run COMET on (default: 0, the CPU)",
    )
    add_manifest_arg(parser)
    add_result_args(parser, "the numbers")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the scores.

    Raises:
        InputError: Not a store or an empty one, an utterance without reference, COMET is asked for
            and cannot be loaded, or a file that cannot be written.
    """
    check_output(args.output)
    references = references_of(args.manifest)
    comet = None if args.comet is None else comet_scorer(args.comet, args.comet_gpus)
    results: list[tuple[str, Quality]] = []
    for name, store in open_stores(args.stores).items():
        results += [(name, result) for result in quality(store, references, comet)]
    show(quality_grid(results, args.comet), args)
    for name in dict.fromkeys(name for name, _ in results):
        there = {i for owner, result in results if owner == name for i in result.ids}
        note_rows_not_there(name, references, there)
    if args.comet is not None and all(result.is_asr for _, result in results):
        note("no translation in these stores: --comet had nothing to score")
    return 0
