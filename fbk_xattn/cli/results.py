"""What commands that print scores have in common: flags, references, output."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Container, Mapping, Sequence
from pathlib import Path

from fbk_xattn.analysis.references import listed
from fbk_xattn.errors import InputError
from fbk_xattn.files import write_text
from fbk_xattn.report.grid import FORMATS, Grid, records_to_csv, render_grids
from fbk_xattn.report.numbers import to_json

SUFFIXES = (".json", ".csv")


def add_result_args(parser: argparse.ArgumentParser, numbers: str) -> None:
    """Add ``--format`` and ``--output``.

    Args:
        parser: Of the command.
        numbers: What the file of ``--output`` holds.
    """
    parser.add_argument(
        "--format",
        choices=tuple(FORMATS),
        default="terminal",
        help="format of the table (default: %(default)s)",
    )
    parser.add_argument(
        "--output",
        metavar="FILE",
        type=Path,
        help=f"file to save {numbers} in, in full precision: NAME.json or NAME.csv",
    )


def add_manifest_arg(parser: argparse.ArgumentParser) -> None:
    """Add ``--manifest``."""
    parser.add_argument(
        "--manifest",
        metavar="TSV",
        type=Path,
        help="manifest whose tgt_text are the references, by id (default: those of the store, "
        "which are of the manifest that was decoded)",
    )


def references_of(manifest: Path | None) -> dict[str, str] | None:
    """Return the references of ``--manifest`` by utterance id, ``None`` without one.

    Raises:
        InputError: It is not a manifest.
    """
    from fbk_xattn.data.manifest import read_manifest

    return None if manifest is None else {row.id: row.tgt_text for row in read_manifest(manifest)}


def check_output(output: Path | None) -> None:
    """Check ``--output`` before the work rather than after.

    Raises:
        InputError: It is a folder, or has another suffix than those of :data:`SUFFIXES`.
    """
    if output is None:
        return
    if output.is_dir():
        raise InputError(f"--output {output}: is a folder, expected the name of a file")
    if output.suffix not in SUFFIXES:
        raise InputError(f"--output {output}: expected a name ending in {' or '.join(SUFFIXES)}")


def show(grid: Grid, args: argparse.Namespace) -> None:
    """Print a table, and save its records if ``--output`` asks for it.

    Raises:
        InputError: The file cannot be written.
    """
    sys.stdout.write(render_grids([grid], args.format))
    if args.output is not None:
        write_text(args.output, _as_text(grid.records, args.output.suffix))


def note_rows_not_there(
    name: str, references: Mapping[str, str] | None, ids: Container[str]
) -> None:
    """Name the rows of ``--manifest`` that a store lacks: its scores are without them."""
    if missing := [row for row in references or () if row not in ids]:
        n_rows = len(references or ())
        note(f"{name}: {len(missing)} of {n_rows} rows are not there: {listed(missing)}")


def note(text: str) -> None:
    """Say on standard error what a table is without."""
    print(f"fbk-xattn: note: {text}", file=sys.stderr)


def show_progress(done: int, total: int) -> None:
    """Count utterances on one line of standard error."""
    print(f"\r{done}/{total} utterances", end="\n" if done == total else "", file=sys.stderr)


def _as_text(records: Sequence[Mapping[str, object]], suffix: str) -> str:
    if suffix == ".csv":
        return records_to_csv(records)
    return to_json(records, indent=1)
