"""Tokens joined to words: of a SentencePiece vocabulary, where a word starts shows in its token."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from fbk_xattn.errors import InputError

WORD_START = "\u2581"  # SentencePiece's, before the first token of a word
JOININGS = ("mean", "max")


def word_slices(tokens: Sequence[str]) -> list[slice]:
    """Return where each word is among the tokens.

    A token that begins with SentencePiece's mark starts a word, and so does the first token. A
    mark alone belongs to the word that follows it.

    Args:
        tokens: The ``N`` content tokens, as SentencePiece wrote them.

    Returns:
        The words in order, which hold every token once; none for no token.
    """
    starts = [
        index for index, token in enumerate(tokens) if index == 0 or token.startswith(WORD_START)
    ]
    bounds = [*starts, len(tokens)]
    return [slice(start, end) for start, end in pairwise(bounds)]


def word_text(tokens: Sequence[str], word: slice) -> str:
    """Return a word as it is read: its tokens joined, without the mark of its start."""
    return "".join(tokens[word]).replace(WORD_START, "")


def join_rows(
    values: NDArray[np.floating], words: Sequence[slice], joining: str = "mean"
) -> NDArray[np.floating]:
    """Join the rows of a map, one a token, to one row a word.

    Args:
        values: ``(N, ...)``, one map a token.
        words: The ``W`` words, see :func:`word_slices`.
        joining: ``mean`` or ``max`` over the tokens of a word.

    Returns:
        ``(W, ...)``, of the same type.

    Raises:
        InputError: No such joining.
    """
    if joining not in JOININGS:
        raise InputError(f"joining {joining!r}: expected {' or '.join(JOININGS)}")
    joined = np.empty((len(words), *values.shape[1:]), values.dtype)
    for row, word in enumerate(words):
        joined[row] = values[word].mean(axis=0) if joining == "mean" else values[word].max(axis=0)
    return joined
