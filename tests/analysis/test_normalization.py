import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fbk_xattn.analysis import frame_wise, mean_std

MATRICES = arrays(
    np.float32,
    st.tuples(st.integers(1, 5), st.integers(1, 6)),
    elements=st.floats(-100, 100, width=32),
)


@pytest.fixture(autouse=True)
def _warnings_are_errors():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def test_frame_wise_standardises_columns_with_the_population_deviation():
    weights = np.array([[1, 5, 0], [3, 5, 0], [5, 5, 3]], dtype=np.float32)
    outer = np.sqrt(1.5)  # 2 / sqrt(8 / 3)
    rare = 1 / np.sqrt(2)
    expected = [[-outer, 0, -rare], [0, 0, -rare], [outer, 0, 2 * rare]]
    np.testing.assert_allclose(frame_wise(weights), expected, atol=1e-15)


@settings(deadline=None)
@given(MATRICES)
def test_frame_wise_columns_have_mean_0_and_deviation_1_or_are_0(weights):
    result = frame_wise(weights)
    assert result.dtype == np.float64
    for before, after in zip(weights.T, result.T, strict=True):
        if before.min() == before.max():
            assert not after.any()
        else:
            assert abs(after.mean()) < 1e-6
            assert abs(after.std() - 1) < 1e-6


def test_frame_wise_takes_the_last_two_axes():
    weights = np.random.default_rng(1).random((2, 3, 4, 5))
    expected = [[frame_wise(head) for head in layer] for layer in weights]
    np.testing.assert_array_equal(frame_wise(weights), expected)


def test_frame_wise_counts_a_column_that_differs_by_rounding_only_as_constant():
    heads = np.array([[[0.1], [0.3]], [[0.2], [0.2]], [[0.3], [0.1]]])
    averaged = heads.mean(axis=0)
    assert averaged[0, 0] != averaged[1, 0]  # or else this test shows nothing
    assert not frame_wise(averaged).any()


def test_frame_wise_of_no_token_is_empty():
    assert frame_wise(np.zeros((2, 0, 5))).shape == (2, 0, 5)


def test_mean_std_standardises_each_token_with_the_unbiased_deviation():
    saliency = np.array([[1, 2, 3], [10, 20, 30], [4, 4, 4]], dtype=np.float32)
    np.testing.assert_allclose(mean_std(saliency), [[-1, 0, 1], [-1, 0, 1], [0, 0, 0]])


@settings(deadline=None)
@given(MATRICES)
def test_mean_std_rows_have_mean_0_and_deviation_1_or_are_0(saliency):
    for before, after in zip(saliency, mean_std(saliency), strict=True):
        if before.min() == before.max():
            assert not after.any()
        else:
            assert abs(after.mean()) < 1e-6
            assert abs(after.std(ddof=1) - 1) < 1e-6


def test_mean_std_is_over_all_cells_of_a_token():
    saliency = np.random.default_rng(2).random((3, 4, 5))
    flat = mean_std(saliency.reshape(3, 20))
    np.testing.assert_array_equal(mean_std(saliency), flat.reshape(3, 4, 5))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_mean_std_turns_what_is_not_finite_into_0_in_its_row_alone(bad):
    saliency = np.array([[1, bad, 3], [1, 2, 3]])
    np.testing.assert_allclose(mean_std(saliency), [[0, 0, 0], [-1, 0, 1]])


def test_mean_std_of_one_cell_is_0():
    assert mean_std(np.array([[3.0], [4.0]])).tolist() == [[0], [0]]


def test_mean_std_of_a_map_that_differs_by_rounding_only_is_0():
    averaged = np.array([[0.1 + 0.2 + 0.3, 0.3 + 0.2 + 0.1]]) / 3
    assert np.ptp(averaged) > 0  # or else this test shows nothing
    assert not mean_std(averaged).any()


@pytest.mark.parametrize("shape", [(0, 4), (0, 4, 5), (2, 0)])
def test_mean_std_of_nothing_is_nothing(shape):
    assert mean_std(np.zeros(shape)).shape == shape
