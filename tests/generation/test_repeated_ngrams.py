"""Blocking of repeated n-grams."""

from __future__ import annotations

import math
from argparse import Namespace
from types import SimpleNamespace

import torch
from fairseq.ngram_repeat_block import NGramRepeatBlock
from golden import published
from hypothesis import given, settings
from hypothesis import strategies as st

from fbk_xattn.generation.repeated_ngrams import RepeatedNgramBlock, block_repeated_ngrams

PAD, EOS, V = 1, 2, 7
N_ROOM = 12


def forbidden_one_by_one(hypothesis, size):
    """Tokens that complete an n-gram that is there."""
    begun = hypothesis[len(hypothesis) - size + 1 :]
    found = set()
    for start in range(len(hypothesis) - size + 1):
        *first, last = hypothesis[start : start + size]
        if first == begun:
            found.add(last)
    return found


def padded(hypotheses):
    rows = [[EOS, *h, *[PAD] * (N_ROOM - 1 - len(h))] for h in hypotheses]
    return torch.tensor(rows)


@st.composite
def batches(draw):
    length = draw(st.integers(0, N_ROOM - 2))
    hypothesis = st.lists(st.integers(3, V - 1), min_size=length, max_size=length)
    return draw(st.lists(hypothesis, min_size=1, max_size=5))


@settings(deadline=None)
@given(batches(), st.integers(1, 5))
def test_forbids_what_would_repeat_an_ngram_and_nothing_else(hypotheses, size):
    step = len(hypotheses[0])
    before = torch.randn(len(hypotheses), V, generator=torch.Generator().manual_seed(1))
    lprobs = before.clone()
    block = RepeatedNgramBlock(size)
    assert block(padded(hypotheses), lprobs, len(hypotheses), 1, step) is lprobs
    for row, hypothesis in enumerate(hypotheses):
        expected = before[row].clone()
        expected[sorted(forbidden_one_by_one(hypothesis, size))] = -math.inf
        torch.testing.assert_close(lprobs[row], expected, rtol=0, atol=0)


@settings(deadline=None)
@given(batches(), st.integers(2, 5))
def test_is_fairseqs_where_that_sees_no_padding(hypotheses, size):
    step = len(hypotheses[0])
    before = torch.zeros(len(hypotheses), V)
    tokens = padded(hypotheses)
    ours = RepeatedNgramBlock(size)(tokens, before.clone(), len(tokens), 1, step)
    theirs = NGramRepeatBlock(size, use_extension=False)(
        tokens[:, : step + 1], before.clone(), len(tokens), 1, step
    )
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_only_a_beam_search_that_blocks_is_changed():
    with_blocker = SimpleNamespace(repeat_ngram_blocker=NGramRepeatBlock(4))
    block_repeated_ngrams(with_blocker)
    assert isinstance(with_blocker.repeat_ngram_blocker, RepeatedNgramBlock)
    assert with_blocker.repeat_ngram_blocker.size == 4
    without = SimpleNamespace(repeat_ngram_blocker=None)
    block_repeated_ngrams(without)
    assert without.repeat_ngram_blocker is None


def test_the_task_builds_a_beam_search_that_blocks():
    model, task, _ = published.load()
    repeated = {}
    batch = published.batch(0)
    tag = batch["target"][:, :1]
    for size in (0, 1):
        flags = Namespace(beam=5, max_len_b=200, no_repeat_ngram_size=size, prefix_size=1)
        generator = task.build_generator([model], flags)
        (hypotheses,) = generator.generate([model], batch, prefix_tokens=tag)
        texts = [hypothesis["tokens"].tolist() for hypothesis in hypotheses]
        repeated[size] = [len(set(tokens)) < len(tokens) for tokens in texts]
    assert any(repeated[0])
    assert not any(repeated[1])
