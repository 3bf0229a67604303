"""Sentences to synthesise: cleaned like transcripts, and none that is close to a held-out one."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from rapidfuzz import process
from rapidfuzz.distance import Levenshtein

from examples.prompts.train.telephone import Pair
from fbk_xattn.data.prompts_texts import Language, clean_text
from fbk_xattn.errors import InputError

# Of words that differ, for a sentence to count as another one.
MIN_DISTANCE = 0.25
# Sentences of fewer words are in every text; only the very same ones are taken out.
FEW_WORDS = 4
UNSPEAKABLE = re.compile(r"[^\w\s.,;:!?'\u2019\"\u201c\u201d()\u2026-]")
FOREIGN_LETTERS = re.compile(r"[^a-z' àáèéìíòóùúî]")


class HeldOut:
    """The sentences of ``dev`` and ``test``, that nothing may be synthesised from.

    Args:
        texts: For each language the held-out sentences.
    """

    def __init__(self, texts: dict[Language, Iterable[str]]) -> None:
        """See the class."""
        self._short: dict[Language, set[str]] = {}
        self._long: dict[Language, list[list[str]]] = {}
        self._joined: dict[Language, list[str]] = {}
        for lang, sentences in texts.items():
            cleaned = sorted({clean_text(sentence, lang) for sentence in sentences} - {""})
            words = [sentence.split() for sentence in cleaned]
            self._short[lang] = {" ".join(w) for w in words if len(w) < FEW_WORDS}
            self._long[lang] = [w for w in words if len(w) >= FEW_WORDS]
            self._joined[lang] = [f" {' '.join(w)} " for w in self._long[lang]]

    def close_to(self, text: str, lang: Language) -> bool:
        """Tell whether a cleaned sentence is, holds or nearly is a held-out one.

        Args:
            text: Lower-case words.
            lang: Their language.

        Returns:
            True for the same words; and for held-out sentences of four words or more also for
            those words within a longer sentence, and for an edit distance of at most a quarter of
            the words of the longer one.
        """
        if text in self._short.get(lang, ()):
            return True
        if any(sentence in f" {text} " for sentence in self._joined.get(lang, ())):
            return True
        nearest = process.extractOne(
            text.split(),
            self._long.get(lang, []),
            scorer=Levenshtein.normalized_distance,
            processor=None,
            score_cutoff=MIN_DISTANCE,
        )
        return nearest is not None


def read_held_out(rows: Sequence[dict[str, str]]) -> HeldOut:
    """Return the held-out sentences of a corpus, in both languages.

    Args:
        rows: Of its ``manifest.tsv``.
    """
    texts: dict[Language, list[str]] = {"en": [], "it": []}
    for row in rows:
        if row["split"] != "train":
            for side in ("src", "tgt"):
                lang = row[f"{side}_lang"]
                if lang in ("en", "it"):
                    texts["en" if lang == "en" else "it"].append(row[f"{side}_text"])
    return HeldOut({"en": texts["en"], "it": texts["it"]})


def read_pairs(path: Path, max_words: int) -> list[Pair]:
    """Read sentence pairs that can be spoken as they are written.

    Args:
        path: TSV without header: English, Italian, anything.
        max_words: Longer sentences are left out.

    Returns:
        Cleaned pairs, each once, in the order of the file.

    Raises:
        InputError: A line has fewer than two columns.
    """
    pairs: dict[Pair, None] = {}
    with path.open(encoding="utf-8", newline="") as file:
        for number, line in enumerate(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE), 1):
            if len(line) < 2:
                raise InputError(f"{path}: line {number}: expected English, tab, Italian")
            if any(UNSPEAKABLE.search(text) for text in line[:2]):
                continue
            english, italian = clean_text(line[0], "en"), clean_text(line[1], "it")
            n_words = max(len(english.split()), len(italian.split()))
            if (
                english
                and italian
                and n_words <= max_words
                and not FOREIGN_LETTERS.search(english + italian)
            ):
                pairs[english, italian] = None
    return list(pairs)


def without_held_out(pairs: Sequence[Pair], held_out: HeldOut) -> list[Pair]:
    """Return the pairs that are close to no held-out sentence in either language."""
    return [
        (english, italian)
        for english, italian in pairs
        if not (held_out.close_to(english, "en") or held_out.close_to(italian, "it"))
    ]
