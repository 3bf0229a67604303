import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fbk_xattn.analysis import AGGREGATIONS, aggregate
from fbk_xattn.errors import InputError

# One token, five frames of two mel bins: with two frames a step, the last step has one.
FIVE_FRAMES = np.array([[[1, 2], [3, 4], [5, 0], [0, 0], [7, 1]]], dtype=np.float32)


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("2d-max", [4, 5, 7]),
        ("2d-avg", [2.5, 1.25, 4]),
        ("1d-max-1d-avg", [3, 2.5, 7]),
    ],
)
def test_values_of_a_small_map(how, expected):
    assert aggregate(FIVE_FRAMES, 3, 2, how).tolist() == [expected]


def test_default_is_the_maximum():
    assert aggregate(FIVE_FRAMES, 3, 2).tolist() == [[4, 5, 7]]


LOOPS = {
    "2d-max": lambda window: window.max(),
    "2d-avg": lambda window: window.mean(),
    "1d-max-1d-avg": lambda window: np.mean([frame.max() for frame in window]),
}


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 3),
    st.integers(1, 19),
    st.integers(1, 4),
    st.integers(1, 7),
    st.sampled_from(sorted(AGGREGATIONS)),
)
def test_equals_a_loop_over_windows(seed, S, T, F, frames_per_step, how):
    saliency = np.random.default_rng(seed).normal(size=(S, T, F))
    windows = [range(T)[start : start + frames_per_step] for start in range(0, T, frames_per_step)]
    expected = [[LOOPS[how](token[list(w)]) for w in windows] for token in saliency]
    np.testing.assert_allclose(
        aggregate(saliency, len(windows), frames_per_step, how), expected, rtol=1e-12, atol=1e-14
    )


@pytest.mark.parametrize("how", ["2d-avg", "1d-max-1d-avg"])
def test_means_of_single_precision_are_taken_in_double(how):
    saliency = np.array([[[2**24], [1], [1], [1]]], dtype=np.float32)
    assert aggregate(saliency, 1, 4, how).item() == (2**24 + 3) / 4


def test_no_token_gives_no_row():
    assert aggregate(np.zeros((0, 5, 2)), 3, 2).shape == (0, 3)


@pytest.mark.parametrize("n_steps", [2, 4])
def test_wrong_number_of_steps_is_named_with_the_expected_one(n_steps):
    with pytest.raises(ValueError, match=rf"^{n_steps} encoder steps for 5 frames, expected 3"):
        aggregate(FIVE_FRAMES, n_steps, 2)


def test_unknown_aggregation_is_input_error():
    with pytest.raises(InputError, match="'max': expected one of 2d-max, 2d-avg, 1d-max-1d-avg"):
        aggregate(FIVE_FRAMES, 3, 2, "max")


def test_frames_per_step_must_be_positive():
    with pytest.raises(ValueError, match="frames_per_step is 0"):
        aggregate(FIVE_FRAMES, 3, 0)


@pytest.mark.parametrize("shape", [(2, 5), (1, 0, 2), (1, 5, 0)])
def test_maps_without_three_axes_or_cells_are_refused(shape):
    with pytest.raises(ValueError, match="expected \\(tokens, frames, mel bins\\)"):
        aggregate(np.zeros(shape), 3, 2)
