import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fbk_xattn.analysis.bootstrap import Bootstrap
from fbk_xattn.analysis.differences import Estimate, estimate, means, with_counts


def mean_of(values):
    return estimate(with_counts(values), means)


def test_the_verdict_is_read_off_the_interval():
    assert Estimate(0.5, 0.1, 0.9, 9).verdict == "holds"
    assert Estimate(-0.5, -0.9, -0.1, 9).verdict == "does not hold"
    assert Estimate(0.5, -0.1, 0.9, 9).verdict == "undecided"
    assert Estimate(0.0, 1e-14, 1e-13, 9).verdict == "undecided"
    assert Estimate(0.5, float("nan"), float("nan"), 1).verdict == "undecided"


@pytest.mark.parametrize(
    ("shift", "verdict"), [(1.0, "holds"), (-1.0, "does not hold"), (0.0, "undecided")]
)
def test_verdicts_both_ways(rng, shift, verdict):
    gains = rng.normal(size=40)
    assert mean_of(gains - gains.mean() + shift).verdict == verdict


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**32 - 1), st.integers(2, 30))
def test_the_interval_of_a_mean_is_that_of_the_bootstrap(seed, n):
    values = np.random.default_rng(seed).normal(size=n)
    values[0] = np.nan
    found = mean_of(values)
    low, high = Bootstrap().interval(values)
    assert found.value == pytest.approx(np.nanmean(values))
    np.testing.assert_allclose([found.low, found.high], [low, high], atol=1e-12)


def test_a_paired_difference_is_narrower_than_its_parts_say(rng):
    common = rng.normal(size=50)
    a, b = common + 0.1 + 0.01 * rng.normal(size=50), common
    whole = with_counts(np.stack([a, b], axis=1))
    difference = estimate(whole, lambda sums: means(sums)[:, 0] - means(sums)[:, 1])
    alone = mean_of(a)
    assert difference.high - difference.low < 0.1 * (alone.high - alone.low)
    assert difference.verdict == "holds"


def test_the_best_of_several_is_chosen_anew_in_every_resample(rng):
    """Of ten alike, the best on these utterances is no better in truth; its interval says so."""
    values = with_counts(rng.normal(size=(30, 10)))
    gain = estimate(values, lambda sums: means(sums).max(axis=1))
    fixed = int(np.argmax(means(values.sum(axis=0, keepdims=True))[0]))
    chosen = estimate(values, lambda sums: means(sums)[:, fixed])
    assert gain.value == pytest.approx(chosen.value)
    assert gain.low > chosen.low


def test_too_few_utterances_have_no_interval():
    one = mean_of(np.array([0.5]))
    assert one.value == 0.5
    assert np.isnan([one.low, one.high]).all()
    assert mean_of(np.zeros(0)).n_utterances == 0
