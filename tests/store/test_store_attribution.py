import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic import as_segments, make_attribution

from fbk_xattn.store import SegmentLevel, SegmentSaliency


def random_saliency(seed, n_levels, S=3, T=4, F=5, n_masks=6):
    """Make levels of random labels; some segments are never occluded."""
    rng = np.random.default_rng(seed)
    levels = []
    for _ in range(n_levels):
        n_segments = int(rng.integers(1, T * F))
        occluded = rng.random((n_masks, n_segments)) < 0.3
        scores = rng.standard_normal((n_masks, S))
        levels.append(
            SegmentLevel(
                labels=rng.integers(0, n_segments, (T, F)).astype(np.uint16),
                numerator=(scores.T @ occluded).astype(np.float32),
                denominator=occluded.sum(axis=0, dtype=np.int32),
            )
        )
    return SegmentSaliency(tuple(levels))


@given(st.integers(0, 10_000), st.integers(1, 4))
def test_dense_map_is_the_mean_score_of_the_masks_that_occluded_a_cell(seed, n_levels):
    saliency = random_saliency(seed, n_levels)
    dense = saliency.dense()
    assert dense.shape == (3, 4, 5)
    assert dense.dtype == np.float32
    for token, frame, mel_bin in np.ndindex(3, 4, 5):
        total, count = 0.0, 0
        for level in saliency.levels:
            segment = level.labels[frame, mel_bin]
            total += float(level.numerator[token, segment])
            count += int(level.denominator[segment])
        expected = total / count if count else 0.0
        assert dense[token, frame, mel_bin] == pytest.approx(expected, rel=1e-6, abs=1e-7)


def test_levels_count_by_their_masks_and_not_each_the_same():
    """A level in which more masks occluded the cell weighs more."""
    one = SegmentLevel(np.zeros((1, 1), np.uint16), np.array([[8.0]], np.float32), np.array([4]))
    two = SegmentLevel(np.zeros((1, 1), np.uint16), np.array([[1.0]], np.float32), np.array([1]))
    assert SegmentSaliency((one, two)).dense().item() == pytest.approx(9 / 5)


def test_cells_never_occluded_are_0():
    level = SegmentLevel(
        labels=np.array([[0, 1], [1, 0]], np.uint16),
        numerator=np.array([[0.0, 6.0], [0.0, 3.0]], np.float32),
        denominator=np.array([0, 3], np.int32),
    )
    dense = SegmentSaliency((level, level)).dense()
    assert np.array_equal(dense, [[[0, 2], [2, 0]], [[0, 1], [1, 0]]])


def test_dense_map_keeps_small_scores_beside_large_ones():
    """Sums are taken in float64: 1e8 + 1 + 1 would lose the ones in float32."""
    level = SegmentLevel(np.zeros((1, 1), np.uint16), np.array([[1e8]], np.float32), np.array([1]))
    small = SegmentLevel(np.zeros((1, 1), np.uint16), np.array([[1.0]], np.float32), np.array([0]))
    minus = SegmentLevel(np.zeros((1, 1), np.uint16), np.array([[-1e8]], np.float32), np.array([0]))
    assert SegmentSaliency((level, small, minus)).dense().item() == 1.0


def test_counts_of_many_levels_do_not_overflow():
    many = np.array([2**31 - 1], np.int32)
    level = SegmentLevel(np.zeros((1, 1), np.uint16), np.array([[2.0**31]], np.float32), many)
    assert SegmentSaliency((level, level)).dense().item() == pytest.approx(1.0)


def test_a_segment_for_every_cell_gives_the_map_back():
    dense = np.random.default_rng(0).random((3, 6, 5)).astype(np.float32)
    assert np.array_equal(as_segments(dense).dense(), dense)


@pytest.mark.parametrize(("n_prefix", "rows"), [(1, [1, 2, 3, 4]), (0, [0, 1, 2, 3, 4])])
def test_content_leaves_out_language_tag_and_eos(n_prefix, rows):
    attribution = make_attribution(np.random.default_rng(0), S=6, n_prefix=n_prefix)
    assert np.arange(6)[attribution.content].tolist() == rows


def test_content_of_an_empty_hypothesis_is_empty():
    attribution = make_attribution(np.random.default_rng(0), S=2)
    assert np.arange(2)[attribution.content].size == 0
