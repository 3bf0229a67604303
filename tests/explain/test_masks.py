import hashlib
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fbk_xattn.explain import MaskSampler
from fbk_xattn.explain.masks import share

ROOT = Path(__file__).parents[2]
KEY = (7, "talk/1", "input", 0)


@given(
    n_segments=st.integers(1, 70),
    cuts=st.lists(st.integers(0, 60), max_size=8),
    probability=st.sampled_from([0.1, 0.5, 0.7]),
)
def test_masks_are_the_same_whichever_are_drawn_together(n_segments, cuts, probability):
    sampler = MaskSampler(probability)
    whole = sampler.occluded(KEY, 0, 60, n_segments)
    assert whole.shape == (60, n_segments)
    edges = sorted({0, 60, *cuts})
    parts = [sampler.occluded(KEY, start, stop, n_segments) for start, stop in pairwise(edges)]
    assert np.array_equal(np.concatenate(parts), whole)


@given(st.integers(0, 10**9), st.integers(1, 1000))
def test_one_mask_far_into_the_stream_can_be_drawn_alone(number, n_segments):
    sampler = MaskSampler(0.5)
    pair = sampler.occluded(KEY, number, number + 2, n_segments)
    assert np.array_equal(sampler.occluded(KEY, number + 1, number + 2, n_segments)[0], pair[1])


def test_no_masks_are_an_empty_array():
    assert MaskSampler(0.5).occluded(KEY, 5, 5, 9).shape == (0, 9)


def test_masks_are_the_same_in_another_process():
    code = (
        "import sys, types\n"
        "package = types.ModuleType('fbk_xattn.explain')\n"  # the real one imports torch: slow
        "package.__path__ = ['fbk_xattn/explain']\n"
        "sys.modules['fbk_xattn.explain'] = package\n"
        "from fbk_xattn.explain.masks import MaskSampler\n"
        f"print(MaskSampler(0.3).occluded({KEY}, 3, 20, 33).astype('u1').tobytes().hex())"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "123", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True, text=True, check=True, cwd=ROOT, env=environment,
    )  # fmt: skip
    here = MaskSampler(0.3).occluded(KEY, 3, 20, 33)
    assert bytes.fromhex(done.stdout.strip()) == here.astype(np.uint8).tobytes()


@pytest.mark.parametrize(("n_segments", "counters"), [(1, 1), (16, 1), (17, 2), (37, 3), (48, 3)])
def test_mask_reads_its_own_stretch_of_the_counter(n_segments, counters):
    """What ``advance`` does, said through the counter that Philox begins with."""
    digest = hashlib.blake2b(b"\0".join([b"7", b"talk/1", b"input", b"0"]), digest_size=16).digest()
    key = [int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little")]
    masks = MaskSampler(0.3).occluded(KEY, 0, 50, n_segments)
    for number in (0, 1, 49):
        stream = np.random.Philox(key=key, counter=number * counters)
        words = [int(word) for word in stream.random_raw(4 * counters)]
        numbers = [word >> shift & 0xFFFF for word in words for shift in (0, 16, 32, 48)]
        assert masks[number].tolist() == [n < round(0.3 * 65536) for n in numbers[:n_segments]]


def test_masks_never_change_between_versions():
    """A store can be gone on with, and a paper's numbers made again, after an update."""
    masks = MaskSampler(0.5).occluded((1, "utt", "input", 2), 0, 1000, 813)
    digest = hashlib.sha256(np.packbits(masks).tobytes()).hexdigest()
    assert digest == "3ebaf4a60aad1716a29a5b3e839a57d2c0fdefef7ad19d6faa60db221a5c16e1"


@pytest.mark.parametrize(
    "other",
    [(8, "talk/1", "input", 0), (7, "talk/2", "input", 0), (7, "talk/1", "encoder", 0),
     (7, "talk/1", "input", 1), (7, "talk/1 ", "input", 0), (7, "", "talk/1input", 0)],
)  # fmt: skip
def test_masks_depend_on_every_part_of_the_key(other):
    sampler = MaskSampler(0.5)
    ours, theirs = (sampler.occluded(key, 0, 100, 100) for key in (KEY, other))
    # Independent streams agree on half of the 10,000 bits, 6 standard deviations are 3 %.
    assert abs((ours == theirs).mean() - 0.5) < 0.03


def test_parts_of_the_key_do_not_run_together():
    ours, theirs = (
        MaskSampler(0.5).occluded((seed, name, "input", 0), 0, 10, 100)
        for seed, name in ((1, "23"), (12, "3"))
    )
    assert not np.array_equal(ours, theirs)


@pytest.mark.parametrize("n_segments", [1, 15, 16, 17, 813])
def test_masks_of_one_stream_differ_and_segments_are_independent(n_segments):
    masks = MaskSampler(0.5).occluded(KEY, 0, 4000, n_segments).astype(float)
    bound = 6 * 0.5 / np.sqrt(4000)
    assert np.abs(masks.mean(axis=0) - 0.5).max() < bound
    # Neither with the next mask nor with the next segments do they agree more than by chance.
    assert np.abs((masks[1:] == masks[:-1]).mean(axis=0) - 0.5).max() < bound
    for distance in (d for d in (1, 4, 16, 64) if d < n_segments):
        agreement = (masks[:, distance:] == masks[:, :-distance]).mean(axis=0)
        assert np.abs(agreement - 0.5).max() < bound


@pytest.mark.parametrize("probability", [2**-16, 0.1, 0.3, 0.5, 0.7, 0.95, 1 - 2**-16])
def test_probability_is_met(probability):
    masks = MaskSampler(probability).occluded(KEY, 0, 500, 813)
    bound = 5 * np.sqrt(probability * (1 - probability) / masks.size)
    assert abs(masks.mean() - probability) < bound + 2**-17


@pytest.mark.parametrize(
    "probability", [0, -0.1, 1 + 2**-18, 1.1, 2**-18, float("nan"), float("inf")]
)
def test_probability_that_occludes_nothing_or_is_none_is_refused(probability):
    with pytest.raises(ValueError, match="expected more than 0 and at most 1"):
        MaskSampler(probability)


@pytest.mark.parametrize("probability", [1, 1.0, 1 - 2**-18])
def test_probability_1_occludes_everything(probability):
    assert MaskSampler(probability).occluded(KEY, 3, 60, 813).all()


@given(st.integers(0, 100_000), st.integers(1, 12))
def test_shares_sum_up_and_differ_by_one_at_most(n_masks, n_levels):
    shares = share(n_masks, n_levels)
    assert len(shares) == n_levels
    assert sum(shares) == n_masks
    assert max(shares) - min(shares) <= 1
    assert shares == sorted(shares, reverse=True)
