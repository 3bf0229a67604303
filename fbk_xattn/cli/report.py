"""``fbk-xattn report``: one HTML file to look at the explanations of a store."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

from fbk_xattn.analysis import AGGREGATIONS
from fbk_xattn.analysis.references import listed
from fbk_xattn.analysis.words import JOININGS
from fbk_xattn.cli.evaluate import note_differences
from fbk_xattn.cli.reading import check_named_once, check_words, progress
from fbk_xattn.cli.results import note
from fbk_xattn.errors import InputError
from fbk_xattn.files import write_text
from fbk_xattn.store import AttributionStore, CurveStore

if TYPE_CHECKING:
    from fbk_xattn.report.html.audio import AudioSource

AUDIO_FORMATS = ("opus", "flac")
DEFAULT_UTTERANCES = 50
MEGABYTE = 1e6


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``report``."""
    parser = subparsers.add_parser(
        "report",
        help="one HTML file to look at the explanations of a store",
        description="Write one HTML file that any browser opens from disk without a network: "
        "correlation tables, quality and deletion curves of the whole store; a table of "
        "utterances; and of each utterance the spectrogram with what every token listened to.",
        allow_abbrev=False,
    )
    parser.add_argument("store", metavar="OUT", type=Path, help="attribution store to read")
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        type=Path,
        default=Path("report.html"),
        help="file to write (default: %(default)s)",
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--id", nargs="+", metavar="ID", help="utterances of the page, in order")
    which.add_argument(
        "--max-utterances",
        type=int,
        metavar="N",
        default=DEFAULT_UTTERANCES,
        help="at most so many utterances, as many of each task (default: %(default)s)",
    )
    parser.add_argument(
        "--words",
        choices=JOININGS,
        help="show words at first, the maps of their tokens averaged (mean) or their maximum "
        "(max); the page switches (default: tokens)",
    )
    parser.add_argument(
        "--aggregation",
        choices=tuple(AGGREGATIONS),
        default="2d-max",
        help="how input saliency is brought to encoder steps (default: %(default)s)",
    )
    parser.add_argument(
        "--deletion",
        nargs="+",
        metavar="FOLDER",
        type=Path,
        default=[],
        help="folders of fairseq-generate --deletion or --insertion whose curves are shown",
    )
    parser.add_argument(
        "--audio",
        nargs="?",
        choices=AUDIO_FORMATS,
        const=AUDIO_FORMATS[0],
        help="put the audio of each utterance into the page, as opus (default; 4 kB a second) or "
        "as flac (16 kB a second, for browsers that do not play Ogg Opus)",
    )
    parser.add_argument(
        "--manifest",
        nargs="+",
        metavar="TSV",
        type=Path,
        default=[],
        help="manifests of the corpus, whose audio column names audio files relative to the "
        "manifest (for --audio)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the page and print its name; what it is without goes to standard error.

    Raises:
        InputError: Not a store or a folder of deletion, an unknown id, audio that cannot be read,
            or a file that cannot be written.
    """
    from fbk_xattn.report.html import build_page
    from fbk_xattn.report.html.rows import TOKENS

    _check(args)
    store = AttributionStore.open(args.store)
    check_words([store], args.words)
    deletions = [CurveStore.open(folder) for folder in args.deletion]
    page = build_page(
        store,
        _chosen(store, args.id, args.max_utterances),
        aggregation=args.aggregation,
        rows=args.words or TOKENS,
        deletions=deletions,
        audio=_audio(args.manifest, args.audio),
        progress=progress(),
    )
    write_text(args.output, page.html)
    megabytes = args.output.stat().st_size / MEGABYTE
    print(f"{args.output}: {len(page.ids)} utterances, {megabytes:.1f} MB")
    if page.n_left_out:
        note(
            f"{page.n_left_out} of {page.n_left_out + len(page.ids)} utterances are not in the "
            "page (--max-utterances N or --id ID ... chooses)"
        )
    if page.without_audio:
        note(
            f"{len(page.without_audio)} utterances are in none of the manifests and have no audio: "
            f"{listed(page.without_audio)}"
        )
    note_differences(deletions)
    return 0


def _check(args: argparse.Namespace) -> None:
    """Check flags before the work rather than after."""
    check_named_once(args.deletion)
    if args.output.is_dir():
        raise InputError(f"--output {args.output}: is a folder, expected the name of a file")
    if args.max_utterances < 1:
        raise InputError(f"--max-utterances {args.max_utterances}: expected at least 1")
    if args.audio and not args.manifest:
        raise InputError("--audio: expected --manifest TSV with it, which says where audio is")
    if args.manifest and not args.audio:
        raise InputError("--manifest: says where audio is, expected --audio with it")


def _chosen(store: AttributionStore, asked: Sequence[str] | None, at_most: int) -> list[str]:
    """Return the ids of the page, each once, all of them in the store."""
    there = store.ids()
    if asked is None:
        return there if len(there) <= at_most else _spread(store, there, at_most)
    known = set(there)
    for utterance_id in asked:
        if utterance_id not in known:
            raise InputError(
                f"--id {utterance_id!r}: not among the {len(there)} utterances of {store.path}, "
                f"expected for example {', '.join(there[:3])}"
            )
    return list(dict.fromkeys(asked))


def _spread(store: AttributionStore, ids: Sequence[str], at_most: int) -> list[str]:
    """Return the first utterances of each task, as many of each as far as these last, in order."""
    tasks: dict[tuple[str, str], list[str]] = {}
    for utterance_id in ids:
        texts = store.texts(utterance_id)
        tasks.setdefault((texts["src_lang"], texts["tgt_lang"]), []).append(utterance_id)
    in_turns = [each for turn in zip_longest(*tasks.values()) for each in turn if each is not None]
    return sorted(in_turns[:at_most])


def _audio(manifests: Sequence[Path], form: str | None) -> AudioSource | None:
    """Return where the audio of each row is.

    Raises:
        InputError: Not a manifest, manifests that disagree, or a row that names no audio file.
    """
    from fbk_xattn.data.manifest import read_manifest
    from fbk_xattn.report.html.audio import AudioSource

    if form is None:
        return None
    files: dict[str, Path] = {}
    for manifest in manifests:
        for row in read_manifest(manifest):
            file = manifest.parent / row.audio
            if ".zip:" in row.audio or file.suffix == ".npy":
                raise InputError(
                    f"--manifest {manifest}: audio of {row.id!r} is {row.audio!r}, which is no "
                    "audio file; expected the manifest of the corpus that was prepared"
                )
            if files.setdefault(row.id, file) != file:
                raise InputError(
                    f"--manifest {manifest}: audio of {row.id!r} is {file}, but {files[row.id]} in "
                    "another one; expected one file an utterance"
                )
    return AudioSource(files, form)
