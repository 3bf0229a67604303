"""``fbk-xattn prepare``: features, vocabulary and data config for a corpus."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from fbk_xattn.errors import InputError


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``prepare``."""
    parser = subparsers.add_parser(
        "prepare",
        help="compute features and a vocabulary for the manifests of a corpus",
        description="Compute 80 log-mel filterbanks for all manifests (*.tsv) of a corpus, train a "
        "SentencePiece unigram vocabulary with language tags on the train* manifests, and write a "
        "data folder for fairseq-train and fairseq-generate.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "corpus",
        metavar="CORPUS",
        type=Path,
        help="folder with manifests; audio paths count from it",
    )
    parser.add_argument("data", metavar="DATA", type=Path, help="data folder to write")
    vocabulary = parser.add_mutually_exclusive_group()
    vocabulary.add_argument(
        "--vocabulary-size",
        type=int,
        default=8000,
        metavar="N",
        help="wanted number of SentencePiece symbols (default: %(default)s)",
    )
    vocabulary.add_argument(
        "--vocabulary",
        type=Path,
        metavar="FOLDER",
        help="take spm.model and dict.txt of this folder instead: data for a trained model",
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=1,
        metavar="N",
        help="processes that compute features (default: %(default)s)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Prepare the data folder.

    Raises:
        InputError: No such corpus, a wrong size, or an utterance that cannot be read.
    """
    from fbk_xattn.data.prepare import prepare

    if not args.corpus.is_dir():
        raise InputError(f"{args.corpus}: no such folder, expected one with manifests (*.tsv)")
    if args.vocabulary_size < 10:
        raise InputError(f"--vocabulary-size {args.vocabulary_size}: expected at least 10")
    if args.workers < 1:
        raise InputError(f"--workers {args.workers}: expected at least 1")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    prepare(args.corpus, args.data, args.vocabulary or args.vocabulary_size, args.workers)
    return 0
