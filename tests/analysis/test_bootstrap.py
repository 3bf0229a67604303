import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fbk_xattn.analysis import Bootstrap
from fbk_xattn.errors import InputError

SEEDS = st.integers(0, 2**32 - 1)


@settings(deadline=None, max_examples=40)
@given(SEEDS, st.integers(2, 60))
def test_interval_contains_the_mean(seed, n):
    values = np.random.default_rng(seed).normal(size=(n, 2, 3))
    low, high = Bootstrap(seed=seed).interval(values)
    assert np.all(low <= values.mean(axis=0))
    assert np.all(values.mean(axis=0) <= high)


@settings(deadline=None, max_examples=20)
@given(SEEDS)
def test_interval_shrinks_with_more_utterances(seed):
    values = np.random.default_rng(seed).normal(size=(25, 1))
    few = np.ptp(Bootstrap().interval(values), axis=0)
    many = np.ptp(Bootstrap().interval(np.tile(values, (16, 1))), axis=0)
    assert many < few / 2  # a quarter, up to the noise of the resamples


@settings(deadline=None, max_examples=20)
@given(SEEDS)
def test_same_seed_same_interval_and_another_seed_another(seed):
    values = np.random.default_rng(seed).normal(size=(30, 4))
    first = Bootstrap(seed=seed).interval(values)
    np.testing.assert_array_equal(Bootstrap(seed=seed).interval(values), first)
    assert np.any(Bootstrap(seed=seed + 1).interval(values) != first)


@settings(deadline=None, max_examples=20)
@given(SEEDS, st.floats(0.1, 10), st.floats(-5, 5))
def test_interval_moves_with_the_values(seed, scale, offset):
    values = np.random.default_rng(seed).normal(size=(20, 2))
    expected = scale * Bootstrap().interval(values) + offset
    np.testing.assert_allclose(Bootstrap().interval(scale * values + offset), expected, atol=1e-9)


def test_equals_a_loop_over_resamples():
    values = np.random.default_rng(1).normal(size=(7, 2))
    values[3, 1] = np.nan
    draws = np.random.default_rng(5).multinomial(7, np.full(7, 1 / 7), size=200)
    means = []
    for counts in draws:
        sample = np.repeat(values, counts, axis=0)
        means.append([np.nanmean(column) for column in sample.T])
    expected = np.quantile(means, [0.05, 0.95], axis=0)
    interval = Bootstrap(n_resamples=200, level=0.9, seed=5).interval(values)
    np.testing.assert_allclose(interval, expected, atol=1e-12)


def test_a_standard_error_is_what_the_width_is_made_of():
    values = np.random.default_rng(2).normal(size=(1000, 1))
    low, high = Bootstrap(n_resamples=4000).interval(values)
    assert (high - low)[0] == pytest.approx(2 * 1.96 * values.std() / 1000**0.5, rel=0.05)


def test_one_defined_utterance_has_no_interval_and_there_is_no_warning():
    values = np.array([[0.5, 0.1, np.nan], [np.nan, 0.3, np.nan]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        interval = Bootstrap().interval(values)
        alone = Bootstrap().interval(values[:1])
    np.testing.assert_allclose(interval, [[np.nan, 0.1, np.nan], [np.nan, 0.3, np.nan]])
    assert np.isnan(alone).all()


def test_ratio_weighs_utterances_by_how_many_they_have():
    totals, counts = np.array([3.0, 10.0]), np.array([3, 1])
    low, high = Bootstrap().interval_of_ratio(totals, counts)
    assert (low, high) == (1, 10)


@pytest.mark.parametrize(
    ("fields", "said"),
    [({"n_resamples": 0}, "at least 1"), ({"level": 1.0}, "less than 1"), ({"seed": -1}, "0 or")],
)
def test_values_out_of_range(fields, said):
    with pytest.raises(InputError, match=said):
        Bootstrap(**fields)
