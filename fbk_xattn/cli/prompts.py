"""``fbk-xattn prompts``: a corpus of real English and Italian speech from Debian's packages."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``prompts``."""
    parser = subparsers.add_parser(
        "prompts",
        help="build a small English-Italian speech corpus from Debian's Asterisk prompts",
        description="Decode the telephone prompts of the Debian packages "
        "asterisk-core-sounds-{en,it}-g722, clean the texts of asterisk-core-sounds-{en,it} and "
        "write manifests for ASR and ST in both directions. The same sentences are in both "
        "languages, and a sentence is in one split for both.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--audio-dir",
        metavar="DIR",
        type=Path,
        required=True,
        help="folder with the four packages unpacked",
    )
    parser.add_argument(
        "--output", metavar="CORPUS", type=Path, required=True, help="corpus folder to write"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Build the corpus.

    Raises:
        InputError: A package is missing or damaged.
    """
    from fbk_xattn.data.prompts import build_prompts_corpus

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for name, n_rows in build_prompts_corpus(args.audio_dir, args.output).items():
        print(f"{name}.tsv\t{n_rows} utterances")
    return 0
