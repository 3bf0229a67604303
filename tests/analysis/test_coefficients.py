import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from fbk_xattn.analysis import COEFFICIENTS
from fbk_xattn.analysis.coefficients import coefficient
from fbk_xattn.errors import InputError

SEEDS = st.integers(0, 2**32 - 1)
SCIPY = {
    "pearson": scipy.stats.pearsonr,
    "spearman": scipy.stats.spearmanr,
    "kendall": scipy.stats.kendalltau,
}
NAMES = sorted(COEFFICIENTS)


@settings(deadline=None, max_examples=25)
@given(SEEDS, st.integers(3, 30), st.booleans(), st.sampled_from(NAMES))
def test_equals_scipy_with_and_without_ties(seed, n, ties, name):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(2, 3, n)), rng.normal(size=n)
    if ties:
        x, y = x.round(), y.round()
    ours = COEFFICIENTS[name].compute(x, y)
    for ours_row, row in zip(ours.ravel(), x.reshape(-1, n), strict=True):
        if np.ptp(row) == 0 or np.ptp(y) == 0:
            assert np.isnan(ours_row)
        else:
            assert ours_row == pytest.approx(SCIPY[name](row, y).statistic, abs=1e-10)


@settings(deadline=None, max_examples=25)
@given(SEEDS, st.integers(2, 30), st.sampled_from(NAMES))
def test_a_map_has_1_with_itself_and_minus_1_with_its_opposite(seed, n, name):
    x = np.random.default_rng(seed).normal(size=n)
    values = COEFFICIENTS[name].compute(np.stack([x, -x]), x)
    np.testing.assert_allclose(values, [1, -1], atol=1e-12)


@settings(deadline=None, max_examples=25)
@given(SEEDS, st.sampled_from(["spearman", "kendall"]))
def test_ranks_do_not_change_with_a_rising_function(seed, name):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(2, 20)), rng.normal(size=20)
    compute = COEFFICIENTS[name].compute
    np.testing.assert_allclose(compute(np.exp(x), y**3), compute(x, y), atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_direction_range_and_paper_are_data(name):
    metric = coefficient(name).metric
    assert (metric.better, metric.low, metric.high) == ("higher", -1, 1)
    assert metric.source


def test_unknown_name():
    with pytest.raises(InputError, match="'r2': expected one of pearson, spearman, kendall"):
        coefficient("r2")
