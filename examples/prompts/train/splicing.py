"""Sentences spliced of parts of recordings, which no memory of a sentence helps to recognise."""

from __future__ import annotations

import csv
import math
import random
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from examples.prompts.train.fragments import CUT, Fragments
from examples.prompts.train.recordings import read_speech
from fbk_xattn.data.features import SAMPLE_RATE
from fbk_xattn.errors import InputError

COLUMNS = ("id", "start", "end", "text")
SECONDS = (0.8, 7.0)  # of a sentence, about
FADE = 0.005  # seconds over which parts overlap
MAX_PAUSE, PAUSE_SHARE = 0.3, 0.2  # seconds, and how many parts have one before them
FRAGMENT_SHARE = 0.5  # of what is drawn for a sentence, where there are fragments

Samples = NDArray[np.float32]
# Audio file, start and end in seconds, and whether it goes on with the word before it.
Piece = tuple[Path, float, float, bool]


@dataclass(frozen=True, eq=False)
class RecordedPart:
    """Words of a training recording between two quiet places.

    Attributes:
        row: Of the manifest.
        start: Seconds.
        end: Seconds.
        text: The words; a fragment of one has ``CUT`` where it was cut.
    """

    row: dict[str, str]
    start: float
    end: float
    text: str

    def piece(self, speech: Path) -> Piece:
        """Return where it is in the folder ``speech``."""
        return speech / self.row["audio"], self.start, self.end, self.text.startswith(CUT)


def read_parts(speech: Path, rows: Sequence[dict[str, str]]) -> list[RecordedPart]:
    """Read ``SPEECH/parts.tsv``.

    Args:
        speech: Folder with it.
        rows: Of the manifest.

    Raises:
        InputError: No or another file, no parts, or one that is of no training recording; the
            message names file and row (the header is row 1).
    """
    path = speech / "parts.tsv"
    training = {row["id"]: row for row in rows if row["split"] == "train"}
    try:
        with path.open(encoding="utf-8", newline="") as file:
            lines = list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file, expected what alignment.py writes") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"{path}: unreadable ({error}), expected tab-separated UTF-8 text"
        ) from None
    if not lines or tuple(lines[0]) != COLUMNS:
        raise InputError(f"{path}: expected the columns {', '.join(COLUMNS)}")
    if len(lines) == 1:
        raise InputError(f"{path}: has no parts, expected at least one row under the header")
    parts = []
    for number, cells in enumerate(lines[1:], 2):
        try:
            key, start, end, text = cells
            part = RecordedPart(training[key], float(start), float(end), text)
        except (ValueError, KeyError):
            raise InputError(
                f"{path}, row {number}: {cells}, expected a training recording, seconds and words"
            ) from None
        if not (0 <= part.start < part.end < math.inf and text.split()):
            raise InputError(
                f"{path}, row {number}: {cells}, expected a part of some duration and its words"
            )
        parts.append(part)
    return parts


def sentences_of(
    parts: Sequence[RecordedPart],
    n: int,
    generator: random.Random,
    known: Collection[str] = (),
) -> Iterator[list[RecordedPart]]:
    """Yield random sequences of parts, in which rare words are as frequent as others.

    Fragments are there in twos, which make a word.

    Args:
        parts: Of one speaker, at least one.
        n: Sequences.
        generator: Of all choices.
        known: Words of the language; of fragments are made half of them and half others.
    """
    fragments = Fragments(parts, known)
    whole = [part for part in parts if CUT not in part.text]
    with_word: dict[str, list[RecordedPart]] = defaultdict(list)
    for part in whole:
        for word in set(part.text.split()):
            with_word[word].append(part)
    words = sorted(with_word)
    for _ in range(n):
        wanted = generator.uniform(*SECONDS)
        chosen: list[RecordedPart] = []
        while sum(part.end - part.start for part in chosen) < wanted:
            if fragments and (not whole or generator.random() < FRAGMENT_SHARE):
                chosen += fragments.draw(generator)
            else:
                chosen.append(generator.choice(with_word[generator.choice(words)]))
        yield chosen


def spliced(parts: Sequence[Samples], goes_on: Sequence[bool]) -> Samples:
    """Put samples after each other, faded into each other or with a pause between.

    Args:
        parts: ``(N_i,)`` at 16 kHz; how they follow each other is a function of them.
        goes_on: Of each part, whether it is of the same word as the one before: without a pause.

    Returns:
        ``(N,)``.
    """
    generator = np.random.default_rng([len(part) for part in parts])
    result = np.zeros(0, np.float32)
    for part, same_word in zip(parts, goes_on, strict=True):
        if generator.random() < PAUSE_SHARE and len(result) and not same_word:
            n_pause = round(generator.uniform(0, MAX_PAUSE) * SAMPLE_RATE)
            result = np.concatenate([result, np.zeros(n_pause, np.float32)])
        n_fade = min(round(FADE * SAMPLE_RATE), len(part) // 2)
        ramp = np.linspace(0, 1, n_fade, dtype=np.float32)
        faded = part.copy()
        faded[:n_fade] *= ramp
        faded[len(part) - n_fade :] *= ramp[::-1]
        n_shared = min(n_fade, len(result))
        result[len(result) - n_shared :] += faded[:n_shared]
        result = np.concatenate([result, faded[n_shared:]])
    return result


@dataclass(frozen=True)
class Splice:
    """Sentences spliced of parts of recordings, each of which is read once for all of them."""

    sentences: tuple[tuple[Piece, ...], ...]

    def __call__(self) -> Iterator[Samples]:
        """Read the parts, then yield the sentences.

        Raises:
            InputError: A recording is unreadable or ends before a part does.
        """
        found: dict[Path, dict[Piece, Samples]] = defaultdict(dict)
        for sentence in self.sentences:
            for piece in sentence:
                found[piece[0]][piece] = np.zeros(0, np.float32)
        for file, pieces in found.items():
            samples = read_speech(file)
            for piece in pieces:
                start, end = (round(seconds * SAMPLE_RATE) for seconds in piece[1:3])
                if end > len(samples):
                    raise InputError(
                        f"{file}: {len(samples) / SAMPLE_RATE:g} s, "
                        f"expected {piece[2]:g} or more as parts.tsv says"
                    )
                pieces[piece] = samples[start:end].copy()
        for sentence in self.sentences:
            parts = [found[piece[0]][piece] for piece in sentence]
            yield spliced(parts, [piece[3] for piece in sentence])
