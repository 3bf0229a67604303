import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from golden import published
from hypothesis import given, settings
from hypothesis import strategies as st

from fbk_xattn.explain import (
    INPUT_SEGMENTERS,
    EncoderSteps,
    SegmentationAhead,
    SlicPyramid,
    Utterance,
    segmentation,
)
from fbk_xattn.explain.segmentation import contiguous


def utterance(features):
    return SimpleNamespace(features=torch.as_tensor(features))


def noise(n_frames, seed=0):
    return np.random.default_rng(seed).standard_normal((n_frames, 80)).astype(np.float32)


def test_segments_are_those_of_the_published_system():
    recorded = published.arrays("slic")
    levels = SlicPyramid()(utterance(recorded["fbank"]))
    assert len(levels) == 3
    for number, labels in enumerate(levels):
        assert np.array_equal(labels, recorded[f"level{number}"].astype(int) - 1)


@given(n_frames=st.integers(1, 60), seed=st.integers(0, 99), sigma=st.sampled_from([0.0, 1.0]))
@settings(max_examples=25, deadline=None)
def test_labels_are_contiguous_from_0_on_every_level(n_frames, seed, sigma):
    pyramid = SlicPyramid(segments_per_second=(100, 400), sigma=sigma)
    levels = pyramid(utterance(noise(n_frames, seed)))
    assert len(levels) == 2
    for labels in levels:
        assert labels.shape == (n_frames, 80)
        assert labels.dtype == np.int32
        assert np.array_equal(np.unique(labels), np.arange(labels.max() + 1))


@pytest.fixture
def asked(monkeypatch):
    """Record what skimage is asked for, and answer with one segment a row."""
    calls = []

    def slic(image, **options):
        calls.append((image, options))
        return np.repeat(np.arange(len(image))[:, None], image.shape[1], axis=1)

    monkeypatch.setattr(segmentation, "slic", slic)
    return calls


@pytest.mark.parametrize(
    ("n_frames", "requested"),
    [
        (100, [400, 500, 600]),
        (166, [664, 830, 996]),
        (749, [2996, 3745, 4494]),
        (750, [3000, 3750, 4500]),
        (751, [3000, 3750, 4500]),
        (3000, [3000, 3750, 4500]),
        (1, [4, 5, 6]),
    ],
)
def test_number_of_segments_grows_with_the_length_up_to_a_cap(asked, n_frames, requested):
    SlicPyramid()(utterance(np.zeros((n_frames, 80), np.float32)))
    assert [options["n_segments"] for _, options in asked] == requested


def test_rates_and_cap_can_be_set(asked):
    SlicPyramid(segments_per_second=(10, 33), cap_seconds=2.0)(utterance(noise(500)))
    assert [options["n_segments"] for _, options in asked] == [20, 66]


def test_number_of_segments_is_rounded(asked):
    SlicPyramid(segments_per_second=(33, 31))(utterance(noise(190)))  # 62.7 and 58.9
    assert [options["n_segments"] for _, options in asked] == [63, 59]


def test_a_short_utterance_at_a_low_rate_has_one_segment_at_least():
    (labels,) = SlicPyramid(segments_per_second=(10,))(utterance(noise(4)))
    assert labels.min() == 0


def test_smoothing_and_compactness_are_passed_on(asked):
    SlicPyramid(sigma=1.5, compactness=0.3)(utterance(noise(50)))
    for _, options in asked:
        assert (options["sigma"], options["compactness"]) == (1.5, 0.3)


def test_defaults_are_the_papers(asked):
    SlicPyramid()(utterance(noise(50)))
    for _, options in asked:
        assert (options["sigma"], options["compactness"]) == (0.0, 0.1)
        assert options["channel_axis"] is None  # time and frequency, no colours


def test_features_are_scaled_to_0_to_1(asked):
    SlicPyramid()(utterance(noise(50) * 7 + 100))
    for image, _ in asked:
        assert (image.min(), image.max()) == (0, 1)


@pytest.mark.filterwarnings("error")
def test_constant_features_have_segments_too():
    for labels in SlicPyramid()(utterance(np.full((20, 80), -3.0, np.float32))):
        assert labels.shape == (20, 80)


def test_half_precision_features_are_segmented():
    features = torch.as_tensor(noise(20)).half()
    levels = SlicPyramid()(SimpleNamespace(features=features))
    for ours, theirs in zip(levels, SlicPyramid()(utterance(features.float())), strict=True):
        assert np.array_equal(ours, theirs)


def test_every_encoder_step_is_a_segment():
    (labels,) = EncoderSteps()(SimpleNamespace(encoder_out=torch.zeros(7, 3)))
    assert labels.tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert labels.dtype == np.int32


@pytest.mark.parametrize("name", ["cell", "frame", "band"])
def test_cells_are_occluded_together_by_cell_frame_or_band(name):
    n_frames, n_bins = 4, 3
    (labels,) = INPUT_SEGMENTERS[name]()(utterance(np.zeros((n_frames, n_bins))))
    assert labels.shape == (n_frames, n_bins)
    assert labels.dtype == np.int32
    for frame, mel_bin in np.ndindex(n_frames, n_bins):
        expected = {"cell": frame * n_bins + mel_bin, "frame": frame, "band": mel_bin}
        assert labels[frame, mel_bin] == expected[name]


def test_the_default_segmentation_has_a_name():
    assert INPUT_SEGMENTERS["slic"]() == SlicPyramid()


@pytest.mark.parametrize(
    ("setting", "value", "expected"),
    [
        ("segments_per_second", (), "more than 0"),
        ("segments_per_second", (400, 0), "more than 0"),
        ("segments_per_second", (float("inf"),), "more than 0"),
        ("cap_seconds", 0, "more than 0"),
        ("cap_seconds", float("nan"), "more than 0"),
        ("compactness", 0, "more than 0"),
        ("compactness", float("nan"), "more than 0"),
        ("sigma", -1, "0 or more"),
        ("sigma", float("nan"), "0 or more"),
    ],
)
def test_nonsense_for_slic_is_refused(setting, value, expected):
    with pytest.raises(ValueError, match=f"^{setting} .*: expected {expected}$"):
        SlicPyramid(**{setting: value})


@pytest.mark.parametrize("rate", [1e-3, 1e9])
def test_any_rate_gives_segments(rate):
    (labels,) = SlicPyramid(segments_per_second=(rate,))(utterance(noise(20)))
    assert 1 <= labels.max() + 1 <= 20 * 80
    assert np.array_equal(np.unique(labels), np.arange(labels.max() + 1))


def test_missing_labels_are_closed_up_in_order():
    labels = contiguous(np.array([[9, 2], [2, 5]]))
    assert labels.tolist() == [[2, 0], [0, 1]]


def named(name, n_frames=30):
    features = torch.as_tensor(noise(n_frames, seed=ord(name)))
    return Utterance(name, features, *torch.zeros(3, 2, 2).unbind())


class Counted:
    """A segmenter that notes for whom it worked, and in which thread."""

    def __init__(self, fails=()):
        self.fails, self.asked = set(fails), []

    def __call__(self, utterance):
        self.asked.append((utterance.id, threading.current_thread()))
        if utterance.id in self.fails:
            self.fails.discard(utterance.id)
            raise ValueError(f"cannot segment {utterance.id}")
        return SlicPyramid((50,))(utterance)


def test_segmentations_are_the_same_announced_or_not():
    counted = Counted()
    segment = SegmentationAhead(counted)
    for name in "bc":
        segment.announce(named(name))
    for name in "abcb":
        ours, theirs = segment(named(name)), SlicPyramid((50,))(named(name))
        assert [np.array_equal(*pair) for pair in zip(ours, theirs, strict=True)] == [True]
    here = threading.current_thread()
    asked = [(name, thread is here) for name, thread in counted.asked]
    # What was announced is done once and elsewhere, and of no use a second time.
    assert sorted(asked) == [("a", True), ("b", False), ("b", True), ("c", False)]


def test_what_is_announced_begins_before_it_is_asked_for():
    begun = threading.Event()

    def segmenter(utterance):
        begun.set()
        return EncoderSteps()(utterance)

    segment = SegmentationAhead(segmenter)
    segment.announce(named("a"))
    assert begun.wait(timeout=30)
    assert segment(named("a"))[0].tolist() == [0, 1]


def test_an_error_is_that_of_its_own_utterance():
    segment = SegmentationAhead(Counted(fails="bc"))
    segment.announce(named("b"))
    assert segment(named("a"))
    for name in "bc":  # announced, and not
        with pytest.raises(ValueError, match=f"cannot segment {name}"):
            segment(named(name))
    assert segment(named("b"))
