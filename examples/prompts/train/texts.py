"""Sentences to synthesise: cleaned like transcripts, and none that is close to a held-out one."""

from __future__ import annotations

import csv
import logging
import re
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path

from rapidfuzz import process
from rapidfuzz.distance import Levenshtein

from examples.prompts.train.phrases import Pair
from examples.prompts.train.telephone import telephone_sentences
from fbk_xattn.data.prompts_texts import Language, clean_text
from fbk_xattn.errors import InputError

logger = logging.getLogger("build")

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
        self._letters: dict[Language, list[str]] = {}
        for lang, sentences in texts.items():
            spelled = {tuple(_words(sentence, lang)) for sentence in sentences}
            words = [list(sentence) for sentence in sorted(spelled) if sentence]
            self._short[lang] = {_letters(w) for w in words if len(w) < FEW_WORDS}
            self._long[lang] = [w for w in words if len(w) >= FEW_WORDS]
            self._letters[lang] = [_letters(w) for w in self._long[lang]]

    def close_to(self, text: str, lang: Language) -> bool:
        """Tell whether a sentence is, holds or nearly is a held-out one.

        Case, punctuation, accents, apostrophes, digits or words for numbers, doubled letters
        ("dialled", "dialed") and where a compound is written apart make no difference.

        Args:
            text: A sentence.
            lang: Its language.

        Returns:
            True for the same letters; and for held-out sentences of four words or more also for
            those letters within a longer sentence, and for an edit distance of at most a quarter of
            the words of the longer one.
        """
        words = _words(text, lang)
        letters = _letters(words)
        if letters in self._short.get(lang, ()):
            return True
        if any(sentence in letters for sentence in self._letters.get(lang, ())):
            return True
        nearest = process.extractOne(
            words,
            self._long.get(lang, []),
            scorer=Levenshtein.normalized_distance,
            processor=None,
            score_cutoff=MIN_DISTANCE,
        )
        return nearest is not None


def _words(text: str, lang: Language) -> list[str]:
    """Return the words of a sentence without what may be written in several ways."""
    folded = unicodedata.normalize("NFKD", clean_text(text, lang).replace("'", ""))
    return "".join(sign for sign in folded if not unicodedata.combining(sign)).split()


def _letters(words: Sequence[str]) -> str:
    """Return the letters of words in one piece, doubled ones once."""
    return re.sub(r"(.)\1+", r"\1", "".join(words))


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
        InputError: Unreadable, or a line has fewer than two columns.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"{path}: unreadable ({error}), expected tab-separated UTF-8 text"
        ) from None
    pairs: dict[Pair, None] = {}
    for number, line in enumerate(lines, 1):
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


def texts_of(
    part: str, speech: Path, held_out: HeldOut, n_telephone: int, max_words: int, seed: int
) -> list[Pair]:
    """Return the sentence pairs of a part, without those close to held-out ones.

    Args:
        part: ``telephone`` (made by the grammar) or ``general`` (read from ``*_en_it.tsv``).
        speech: Folder of those files.
        held_out: Sentences of ``dev`` and ``test``.
        n_telephone: How many the grammar makes.
        max_words: Of general sentences.
        seed: Of the grammar's choices.

    Raises:
        InputError: No such files, a bad one, or more sentences than the grammar makes.
    """
    if part == "telephone":
        pairs: Iterable[Pair] = telephone_sentences(n_telephone, seed)
    else:
        files = sorted(speech.glob("*_en_it.tsv"))
        if not files:
            raise InputError(f"{speech}: has no *_en_it.tsv, expected sentence pairs")
        pairs = dict.fromkeys(pair for file in files for pair in read_pairs(file, max_words))
    pairs = list(pairs)
    kept = without_held_out(pairs, held_out)
    logger.info("%s: %d pairs, %d close to held-out ones", part, len(kept), len(pairs) - len(kept))
    return kept


def known_words(speech: Path, rows: Sequence[dict[str, str]]) -> dict[Language, frozenset[str]]:
    """Return the words of the sentence pairs and of the transcripts to train on.

    Args:
        speech: Folder with ``*_en_it.tsv``; there may be none.
        rows: Of the manifest.

    Raises:
        InputError: A file is unreadable.
    """
    found: dict[Language, set[str]] = {"en": set(), "it": set()}
    for path in sorted(speech.glob("*_en_it.tsv")):
        for english, italian in read_pairs(path, sys.maxsize):
            found["en"].update(english.split())
            found["it"].update(italian.split())
    for row in rows:
        if row["split"] == "train":
            lang: Language = "en" if row["src_lang"] == "en" else "it"
            found[lang].update(clean_text(row["src_text"], lang).split())
    return {lang: frozenset(words) for lang, words in found.items()}
