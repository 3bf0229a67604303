from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy.special import log_softmax, softmax

from fbk_xattn.explain import SCORERS, probability_difference
from fbk_xattn.explain import kl_divergence as kl_divergence_of

logits = st.floats(-30, 30, width=32)
pairs = st.tuples(
    arrays.arrays(np.float32, (2, 5), elements=logits),
    arrays.arrays(np.float32, (3, 2, 5), elements=logits),
)


def kl_divergence(original, occluded):
    return kl_divergence_of(SimpleNamespace(logits=original), occluded)


def plain(original, occluded):
    """Apply the definition in double precision, cell by cell."""
    log_p, log_q = (log_softmax(x.astype(np.float64), axis=-1) for x in (original, occluded))
    scores = np.zeros(occluded.shape[:2])
    for mask, token in np.ndindex(scores.shape):
        for symbol in range(original.shape[-1]):
            p = np.exp(log_p[token, symbol])
            scores[mask, token] += p * (log_p[token, symbol] - log_q[mask, token, symbol])
    return scores


@given(pairs)
def test_scores_are_those_of_the_definition(pair):
    original, occluded = pair
    scores = kl_divergence(torch.tensor(original), torch.tensor(occluded)).numpy()
    assert scores.shape == (3, 2)
    np.testing.assert_allclose(scores, plain(original, occluded), rtol=1e-5, atol=2e-5)
    assert (scores >= -2e-5).all()


@given(arrays.arrays(np.float32, (2, 5), elements=logits))
def test_identical_distributions_score_0(original):
    same = torch.tensor(original).expand(3, 2, 5)
    assert kl_divergence(torch.tensor(original), same).abs().max() == 0
    assert kl_divergence(torch.tensor(original), same + 4).abs().max() < 1e-4


def test_it_is_not_symmetric_p_is_the_original():
    p, q = torch.tensor([[0.9, 0.1]]).log(), torch.tensor([[0.5, 0.5]]).log()
    expected = 0.9 * np.log(0.9 / 0.5) + 0.1 * np.log(0.1 / 0.5)
    assert kl_divergence(p, q[None]).item() == pytest.approx(expected, rel=1e-6)
    backwards = 0.5 * np.log(0.5 / 0.9) + 0.5 * np.log(0.5 / 0.1)
    assert kl_divergence(q, p[None]).item() == pytest.approx(backwards, rel=1e-6)


def test_probability_too_small_for_a_float_gives_a_large_finite_score():
    original = torch.tensor([[0.0, 0.0]])
    occluded = torch.tensor([[[0.0, -1000.0]]])
    assert kl_divergence(original, occluded).item() == pytest.approx(500 - np.log(2), rel=1e-6)


def test_symbol_that_was_impossible_before_counts_nothing():
    original = torch.tensor([[0.0, -1000.0]])
    occluded = torch.tensor([[[0.0, 0.0]]])
    assert kl_divergence(original, occluded).item() == pytest.approx(np.log(2), rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_logits_are_scored_in_single_precision(dtype):
    generator = torch.Generator().manual_seed(0)
    original = torch.randn(4, 50, generator=generator).to(dtype)
    occluded = (original + 0.1 * torch.randn(3, 4, 50, generator=generator)).to(dtype)
    scores = kl_divergence(original, occluded)
    assert scores.dtype == torch.float32
    expected = plain(original.float().numpy(), occluded.float().numpy())
    np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", SCORERS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_no_score_of_half_precision_logits_is_nan_or_infinite(name, dtype):
    # As far apart as half precision can say: all that float16 holds.
    values = torch.tensor([65504.0, -65504.0, 0.0, 6e-8]).to(dtype)
    utterance = SimpleNamespace(logits=values.expand(3, 4), tokens=torch.tensor([0, 1, 2]))
    occluded = torch.stack([values.roll(n).expand(3, 4) for n in range(4)])
    scores = SCORERS[name](utterance, occluded)
    assert scores.dtype == torch.float32
    assert scores.shape == (4, 3)
    assert scores.isfinite().all()
    assert scores[0].abs().max() == 0


@given(pairs, st.lists(st.integers(0, 4), min_size=2, max_size=2))
def test_probability_difference_is_what_the_token_of_the_hypothesis_lost(pair, tokens):
    original, occluded = pair
    utterance = SimpleNamespace(logits=torch.tensor(original), tokens=torch.tensor(tokens))
    scores = probability_difference(utterance, torch.tensor(occluded)).numpy()
    p, q = (softmax(x.astype(np.float64), axis=-1) for x in (original, occluded))
    for mask, row in np.ndindex(3, 2):
        lost = p[row, tokens[row]] - q[mask, row, tokens[row]]
        assert scores[mask, row] == pytest.approx(lost, abs=1e-6)


def test_probability_that_occlusion_adds_is_negative():
    utterance = SimpleNamespace(logits=torch.tensor([[0.2, 0.8]]).log(), tokens=torch.tensor([0]))
    score = probability_difference(utterance, torch.tensor([[[0.9, 0.1]]]).log())
    assert score.item() == pytest.approx(-0.7, abs=1e-6)
