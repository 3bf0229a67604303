"""Recordings that a training corpus is built from: their manifest, their audio, joined or not."""

from __future__ import annotations

import csv
import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fbk_xattn.data.features import SAMPLE_RATE, read_audio
from fbk_xattn.data.prompts_texts import Language, clean_text
from fbk_xattn.errors import InputError

COLUMNS = (
    *("id", "audio", "corpus", "speaker", "split", "src_lang", "src_text", "tgt_lang", "tgt_text"),
)
SPLITS = ("train", "dev", "test")
OTHER: dict[str, Language] = {"en": "it", "it": "en"}
# Ids and speakers become paths below CORPUS/audio: no "..", nothing absolute.
NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)*")


def read_speech_manifest(speech: Path, audio: bool) -> list[dict[str, str]]:
    """Read and check ``SPEECH/manifest.tsv``.

    Args:
        speech: Folder with the manifest.
        audio: Whether the audio files must be there.

    Returns:
        Its rows by column, at least one.

    Raises:
        InputError: No or another manifest, or a bad row; the message names file and row (the
            header is row 1).
    """
    path = speech / "manifest.tsv"
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
            header = next(reader, [])
            lines = [(number, cells) for number, cells in enumerate(reader, 2) if cells]
    except FileNotFoundError:
        raise InputError(f"{path}: no such file, expected the manifest of a corpus") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"{path}: unreadable ({error}), expected tab-separated UTF-8 text"
        ) from None
    missing = [column for column in COLUMNS if column not in header]
    if missing:
        raise InputError(
            f"{path}: missing column {', '.join(missing)}; expected {', '.join(COLUMNS)}"
        )
    if not lines:
        raise InputError(f"{path}: empty manifest, expected at least one row under the header")
    rows: list[dict[str, str]] = []
    ids: dict[str, int] = {}
    files: dict[str, tuple[int, str]] = {}
    for number, cells in lines:
        where = f"{path}, row {number}"
        if len(cells) != len(header):
            raise InputError(f"{where}: {len(cells)} cells, expected {len(header)} (tab-separated)")
        row = dict(zip(header, cells, strict=True))
        _check(row, where)
        if ids.setdefault(row["id"], number) != number:
            raise InputError(
                f"{where}: id {row['id']!r} is already used in row {ids[row['id']]}, "
                "expected unique ids"
            )
        before, split = files.setdefault(row["audio"], (number, row["split"]))
        if split != row["split"]:
            raise InputError(
                f"{where}: audio {row['audio']} is of {split} in row {before}, "
                f"expected each recording in one split, not in {row['split']} too"
            )
        if audio and not (speech / row["audio"]).is_file():
            raise InputError(f"{where}: no audio {speech / row['audio']}, expected a file")
        rows.append(row)
    return rows


def _check(row: dict[str, str], where: str) -> None:
    for column in ("id", "speaker"):
        if not NAME.fullmatch(row[column]):
            raise InputError(
                f"{where}: {column} is {row[column]!r}, expected letters, digits, -, _ and ., "
                "with / between names"
            )
    if not row["audio"]:
        raise InputError(f"{where}: audio is empty, expected a file")
    if row["split"] not in SPLITS:
        raise InputError(f"{where}: split is {row['split']!r}, expected {', '.join(SPLITS)}")
    lang = row["src_lang"]
    if lang not in OTHER:
        raise InputError(f"{where}: src_lang is {lang!r}, expected {' or '.join(OTHER)}")
    if not clean_text(row["src_text"], OTHER[OTHER[lang]]):
        raise InputError(f"{where}: src_text {row['src_text']!r} has no words")
    translated = bool(clean_text(row["tgt_text"], OTHER[lang]))
    if translated != bool(row["tgt_text"]):
        raise InputError(f"{where}: tgt_text {row['tgt_text']!r} has no words")
    expected = OTHER[lang] if translated else ""
    if row["tgt_lang"] != expected:
        raise InputError(
            f"{where}: tgt_lang is {row['tgt_lang']!r}, expected {expected!r} "
            f"{'with' if translated else 'without'} a tgt_text"
        )


def read_speech(file: Path) -> NDArray[np.float32]:
    """Read an audio file, also Ogg Opus of less than a second, which libsndfile 1.2 refuses.

    Raises:
        InputError: Unreadable, or such a file without ``opusdec`` on the path.
    """
    try:
        return read_audio(file)
    except InputError as error:
        if file.suffix != ".opus":
            raise InputError(f"{file}: {error}") from None
    with tempfile.TemporaryDirectory() as folder:
        decoded = Path(folder, "decoded.wav")
        command = ["opusdec", "--quiet", "--no-dither", "--rate", str(SAMPLE_RATE)]
        try:
            done = subprocess.run([*command, str(file), str(decoded)], capture_output=True)
        except FileNotFoundError:
            raise InputError(f"{file}: needs opusdec (Debian's opus-tools), not found") from None
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip().split("\n")[0]
            raise InputError(f"{file}: unreadable audio (opusdec: {said})")
        try:
            return read_audio(decoded)
        except InputError as error:
            raise InputError(f"{file}: {error}") from None


@dataclass(frozen=True)
class Read:
    """Copies of one recording."""

    file: Path
    copies: int

    def __call__(self) -> list[NDArray[np.float32]]:
        """Read it once."""
        return [read_speech(self.file)] * self.copies


@dataclass(frozen=True)
class Join:
    """Recordings of one speaker after each other, with pauses."""

    files: tuple[Path, ...]
    pauses: tuple[float, ...]

    def __call__(self) -> list[NDArray[np.float32]]:
        """Read and join them."""
        parts = [read_speech(self.files[0])]
        for file, pause in zip(self.files[1:], self.pauses, strict=True):
            parts += [np.zeros(round(pause * SAMPLE_RATE), np.float32), read_speech(file)]
        return [np.concatenate(parts)]
