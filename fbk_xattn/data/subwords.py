"""Subword regularization: texts to train on, cut into other subwords every time."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fbk_xattn.errors import InputError

BOUNDARY = "\u2581"  # SentencePiece's mark before a word
CANDIDATES = 64  # segmentations of a word, the most probable ones
CACHED_WORDS = 10_000

Candidates = tuple[list[str], NDArray[np.float64]]


class SubwordSampler:
    """Samples segmentations of a unigram SentencePiece model.

    Kudo, 'Subword Regularization' (ACL 2018), section 3: of the most probable segmentations one is
    drawn with its probability to the power of ``alpha``. As no subword reaches over the boundary of
    a word, each word is drawn for itself, from its own :data:`CANDIDATES`.
    """

    def __init__(self, tokenizer: Any, alpha: float, flag: str) -> None:
        """Prepare.

        Args:
            tokenizer: fairseq's, of the texts.
            alpha: Above 0; the smaller, the more alike the probabilities.
            flag: That asked for it, for the error.

        Raises:
            InputError: The tokenizer is none of SentencePiece, its model is not a unigram model,
                or has subwords of more than one word.
        """
        self._model: Any = getattr(tokenizer, "sp", None)
        if self._model is None:
            raise InputError(f"{flag}: the tokenizer of the data config is not of SentencePiece")
        try:
            self._model.nbest_encode("a", nbest_size=2, out_type=str)
        except RuntimeError:
            raise InputError(
                f"{flag}: the SentencePiece model cannot sample, expected one of --model_type "
                "unigram"
            ) from None
        pieces = map(self._model.id_to_piece, range(len(self._model)))
        across = next((p for p in pieces if BOUNDARY in p.lstrip(BOUNDARY)), None)
        if across is not None:
            raise InputError(
                f"{flag}: the SentencePiece model has {across!r}, expected no subword of more than "
                "one word"
            )
        self.alpha = alpha
        self._cache: dict[str, Candidates] = {}

    def encode(self, text: str, rng: np.random.Generator) -> str:
        """Return the subwords of a text, separated by spaces.

        Args:
            text: To segment.
            rng: That draws.
        """
        subwords: list[str] = []
        for word in _words(self._model.encode(text, out_type=str)):
            segmentations, cumulative = self._candidates(word)
            drawn = int(np.searchsorted(cumulative, rng.random(), side="right"))
            subwords.append(segmentations[min(drawn, len(segmentations) - 1)])
        return " ".join(subwords)

    def _candidates(self, word: tuple[str, ...]) -> Candidates:
        """Return segmentations of a word, likelier ones first, and the sums of their probabilities.

        Args:
            word: Its most probable segmentation.
        """
        surface = "".join(word)
        found = self._cache.get(surface)
        if found is None:
            best = " ".join(word)
            others = self._model.nbest_encode(
                surface.removeprefix(BOUNDARY), nbest_size=CANDIDATES, out_type=str
            )
            segmentations = [best]
            segmentations += [s for s in map(" ".join, others) if s != best]
            scores = np.array([self._score(each) for each in segmentations])
            weights = np.exp(self.alpha * (scores - scores.max()))
            found = segmentations, np.cumsum(weights / weights.sum())
            if len(self._cache) < CACHED_WORDS:
                self._cache[surface] = found
        return found

    def _score(self, segmentation: str) -> float:
        """Return the log-probability."""
        model = self._model
        return sum(model.get_score(model.piece_to_id(piece)) for piece in segmentation.split(" "))


def _words(subwords: list[str]) -> list[tuple[str, ...]]:
    """Group the subwords of a text by word."""
    words: list[tuple[str, ...]] = []
    for subword in subwords:
        if subword.startswith(BOUNDARY) or not words:
            words.append((subword,))
        else:
            words[-1] += (subword,)
    return words
