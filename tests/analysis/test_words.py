"""Tokens joined to words."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fbk_xattn.analysis.words import WORD_START, join_rows, word_slices, word_text
from fbk_xattn.errors import InputError

TOKENS = ["\u2581press", "\u2581st", "ar", "\u2581", "2", "\u2581now", "."]


def test_words_of_a_hypothesis() -> None:
    words = word_slices(TOKENS)
    assert [word_text(TOKENS, word) for word in words] == ["press", "star", "2", "now."]


def test_no_token_has_no_word() -> None:
    assert word_slices([]) == []


def test_tokens_before_the_first_mark_are_a_word() -> None:
    assert word_slices(["ing", "\u2581a"]) == [slice(0, 1), slice(1, 2)]


@given(st.lists(st.sampled_from(["\u2581a", "b", "\u2581", "c."]), max_size=12))
def test_every_token_is_in_one_word(tokens: list[str]) -> None:
    words = word_slices(tokens)
    assert [index for word in words for index in range(len(tokens))[word]] == list(
        range(len(tokens))
    )
    text = "".join(tokens).replace(WORD_START, "")
    assert "".join(word_text(tokens, word) for word in words) == text


def test_rows_are_joined_by_mean_or_maximum() -> None:
    values = np.array([[1.0, 2.0], [3.0, 8.0], [5.0, 0.0]])
    words = [slice(0, 1), slice(1, 3)]
    assert join_rows(values, words).tolist() == [[1.0, 2.0], [4.0, 4.0]]
    assert join_rows(values, words, "max").tolist() == [[1.0, 2.0], [5.0, 8.0]]


def test_another_joining_is_refused() -> None:
    with pytest.raises(InputError, match="'sum': expected mean or max"):
        join_rows(np.zeros((1, 1)), [slice(0, 1)], "sum")
