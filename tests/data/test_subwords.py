"""Sampling of segmentations."""

from __future__ import annotations

import io
import math
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st

from fbk_xattn.data.subwords import SubwordSampler
from fbk_xattn.errors import InputError

TEXTS = ["please enter your password", "enter the pass word", "the word is a pass", "press one"] * 9
FLAG = "--subword-regularization 0.5"


def model_of(**options):
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS), model_writer=written, vocab_size=40,
        hard_vocab_limit=False, num_threads=1, minloglevel=2, **options,
    )  # fmt: skip
    return sentencepiece.SentencePieceProcessor(model_proto=written.getvalue())


@pytest.fixture(scope="module")
def model():
    return model_of(model_type="unigram")


def sampler_of(model, alpha):
    return SubwordSampler(SimpleNamespace(sp=model), alpha, FLAG)


def segmentations(surface, pieces):
    """Every way to make a word of pieces."""
    if not surface:
        return [[]]
    firsts = [surface[: i + 1] for i in range(len(surface)) if surface[: i + 1] in pieces]
    return [
        [first, *rest] for first in firsts for rest in segmentations(surface[len(first) :], pieces)
    ]


@pytest.mark.parametrize("alpha", [0.2, 1.0])
def test_a_word_is_drawn_by_its_probability_to_the_power_of_alpha(model, alpha, rng):
    """Kudo 2018, section 3, over all segmentations of a word that has few."""
    scores = {model.id_to_piece(i): model.get_score(i) for i in range(3, len(model))}
    found = segmentations("▁word", scores)
    weights = np.exp([alpha * sum(scores[piece] for piece in pieces) for pieces in found])
    expected = dict(zip(map(" ".join, found), weights / weights.sum(), strict=True))
    assert 3 <= len(expected) <= 64
    sampler, n = sampler_of(model, alpha), 4000
    drawn = Counter(sampler.encode("word", rng) for _ in range(n))
    assert set(drawn) <= set(expected)
    for segmentation, p in expected.items():
        assert abs(drawn[segmentation] / n - p) < 5 * math.sqrt(p * (1 - p) / n) + 1e-3


@settings(deadline=None)
@given(st.text(alphabet="adeorpswè ", max_size=30), st.integers(0, 99))
def test_subwords_are_of_the_text_and_of_the_draw(model, text, seed):
    sampler = sampler_of(model, 0.1)
    subwords = sampler.encode(text, np.random.default_rng(seed))
    assert subwords == sampler.encode(text, np.random.default_rng(seed))
    assert subwords == sampler_of(model, 0.1).encode(text, np.random.default_rng(seed))
    expected = " ".join(text.split())
    assert "".join(subwords.split(" ")).replace("▁", " ").removeprefix(" ") == expected


def test_a_large_power_takes_the_most_probable(model, rng):
    best = " ".join(model.encode(TEXTS[0], out_type=str))
    assert {sampler_of(model, 1000.0).encode(TEXTS[0], rng) for _ in range(20)} == {best}
    assert len({sampler_of(model, 0.1).encode(TEXTS[0], rng) for _ in range(20)}) > 10


@pytest.mark.parametrize(
    ("tokenizer", "message"),
    [
        (None, "the tokenizer of the data config is not of SentencePiece"),
        ({"model_type": "bpe"}, "cannot sample, expected one of --model_type unigram"),
        (
            {"model_type": "unigram", "user_defined_symbols": ["▁the▁pass"]},
            "has '▁the▁pass', expected no subword of more than one word",
        ),
    ],
)
def test_what_cannot_sample_is_refused(tokenizer, message):
    tokenizer = tokenizer and SimpleNamespace(sp=model_of(**tokenizer))
    with pytest.raises(InputError, match=f"^{FLAG}: .*{message}$"):
        SubwordSampler(tokenizer, 0.5, FLAG)
