"""Manifests: one TSV a split, one row an utterance of one task."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from fbk_xattn.errors import InputError
from fbk_xattn.files import write_text


@dataclass(frozen=True)
class ManifestRow:
    """One utterance with its transcript and its target text.

    Attributes:
        id: Key of the utterance, unique in its manifest and in an attribution store.
        audio: Audio or feature file: a path, or ``archive.zip:offset:length``.
        n_frames: Number of feature frames (10 ms each).
        speaker: Speaker, or an empty string.
        src_lang: Language spoken, for example ``en``.
        src_text: Transcript.
        tgt_lang: Language of the target text; equal to ``src_lang`` for ASR.
        tgt_text: Target text: the transcript (ASR) or its translation (ST).
    """

    id: str
    audio: str
    n_frames: int
    speaker: str
    src_lang: str
    src_text: str
    tgt_lang: str
    tgt_text: str


COLUMNS = tuple(field.name for field in fields(ManifestRow))
OPTIONAL_COLUMNS = ("speaker",)


def read_manifest(path: Path | str) -> list[ManifestRow]:
    """Read and check a manifest.

    Args:
        path: TSV file with a header naming at least the columns of :data:`COLUMNS` (in any order,
            ``speaker`` may be absent); further columns are ignored.

    Returns:
        The rows in file order, at least one.

    Raises:
        InputError: The file is missing, empty, lacks a column or names it twice, or has a bad row;
            the message names the file and the row (the header is row 1).
    """
    path = Path(path)
    if not path.is_file():
        siblings = sorted(p.name for p in path.parent.glob("*.tsv")) if path.parent.is_dir() else []
        found = (
            f"the folder has {', '.join(siblings)}" if siblings else "the folder has no manifest"
        )
        raise InputError(f"{path}: no such manifest, expected a TSV file; {found}")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE, quotechar=None)
            header = next(reader, None)
            lines = [(number, cells) for number, cells in enumerate(reader, start=2) if cells]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"{path}: unreadable manifest ({error}), expected tab-separated UTF-8 text"
        ) from None
    if not header:
        raise InputError(f"{path}: empty manifest, expected a header and at least one row")
    missing = [c for c in COLUMNS if c not in header and c not in OPTIONAL_COLUMNS]
    if missing:
        raise InputError(
            f"{path}: missing column {', '.join(missing)}; expected {', '.join(COLUMNS)}"
        )
    for column in COLUMNS:
        if header.count(column) > 1:
            raise InputError(f"{path}: column {column} is named twice, expected each once")
    if not lines:
        raise InputError(f"{path}: empty manifest, expected at least one row under the header")
    rows = []
    first_seen: dict[str, int] = {}
    for number, cells in lines:
        row = _parse_row(
            path, number, dict(zip(header, cells, strict=False)), len(cells), len(header)
        )
        if row.id in first_seen:
            raise InputError(
                f"{path}, row {number}: id {row.id!r} is already used in row {first_seen[row.id]}, "
                "expected unique ids"
            )
        first_seen[row.id] = number
        rows.append(row)
    return rows


def _parse_row(
    path: Path, number: int, cells: dict[str, str], n_cells: int, n_columns: int
) -> ManifestRow:
    if n_cells != n_columns:
        raise InputError(
            f"{path}, row {number}: {n_cells} cells, expected {n_columns} (tab-separated)"
        )
    for column in ("id", "audio"):
        if not cells[column].strip():
            raise InputError(f"{path}, row {number}: {column} is empty")
    n_frames = cells["n_frames"]
    if not n_frames.isdecimal() or int(n_frames) == 0:
        raise InputError(
            f"{path}, row {number} (utterance {cells['id']!r}): n_frames is {n_frames!r}, "
            "expected a positive whole number"
        )
    texts = {c: cells.get(c, "") for c in COLUMNS if c != "n_frames"}
    return ManifestRow(n_frames=int(n_frames), **texts)


def write_manifest(path: Path | str, rows: Iterable[ManifestRow]) -> None:
    """Write a manifest, all of it or nothing (a temporary file is renamed).

    Args:
        path: TSV file to create or replace.
        rows: Rows in file order.

    Raises:
        InputError: A cell holds a tab or a line break, which a TSV row cannot carry.
    """
    path = Path(path)
    lines = ["\t".join(COLUMNS)]
    for row in rows:
        cells = [str(cell) for cell in asdict(row).values()]
        for column, cell in zip(COLUMNS, cells, strict=True):
            if any(sign in cell for sign in "\t\r\n"):
                raise InputError(f"utterance {row.id!r}: {column} holds a tab or a line break")
        lines.append("\t".join(cells))
    write_text(path, "\n".join(lines) + "\n")
