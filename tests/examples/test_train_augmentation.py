"""Changed copies of speech: their range, length, loudness and band, and that the seed decides."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from examples.prompts.train.augmentation import _band_limited, _noise, augmented


def speech(n, scale=3000.0, seed=0):
    return np.rint(scale * np.random.default_rng(seed).standard_normal(n)).astype(np.float32)


def copy_of(samples, seed):
    return augmented(samples, np.random.default_rng(seed))


@given(st.integers(0, 900), st.sampled_from([0.0, 1.0, 3000.0, 30_000.0]), st.integers(0, 10**6))
@settings(max_examples=120, deadline=None)
def test_range_and_length_of_any_input(n, scale, seed):
    samples = np.clip(speech(n, scale), -(2**15), 2**15 - 1)
    before = samples.copy()
    changed = copy_of(samples, seed)
    assert changed.dtype == np.float32
    assert changed.ndim == 1
    assert np.isfinite(changed).all()
    assert (changed == np.rint(changed)).all()
    assert not len(changed) or (changed.min() >= -(2**15) and changed.max() < 2**15)
    assert n / 1.14 - 1 <= len(changed) <= n / 0.88 + 1
    assert (samples == before).all()


def test_the_generator_decides():
    samples = speech(8000)
    assert (copy_of(samples, 1) == copy_of(samples, 1)).all()
    copies = [copy_of(samples, seed) for seed in range(30)]
    assert len({len(copy) for copy in copies}) > 10


def test_loudness_is_within_its_bounds():
    for seed in range(40):
        changed = copy_of(speech(8000), seed) / 2**15
        decibels = 10 * np.log10(np.mean(changed**2))
        assert -30.5 < decibels < -13.5


def test_some_copies_are_those_of_narrower_bands():
    samples = speech(16_000)
    bands = []
    for seed in range(200):
        power = np.abs(np.fft.rfft(copy_of(samples, seed))) ** 2
        frequencies = np.linspace(0, 8000, len(power))
        above = [power[frequencies > cutoff].mean() / power.mean() for cutoff in (4100, 5600)]
        bands.append(above)
    narrow, middle = np.array(bands).T
    # Those without noise tell: half of 35 % and half of 55 %.
    assert 0.1 < (narrow < 1e-3).mean() < 0.26
    assert 0.18 < (middle < 1e-3).mean() < 0.38


@pytest.mark.parametrize("cutoff", [4000.0, 5500.0])
def test_a_band_ends_at_its_cutoff_and_is_unchanged_below(cutoff):
    time = np.arange(16_000) / 16_000
    low, high = (np.sin(2 * np.pi * f * time) for f in (0.85 * cutoff, 1.05 * cutoff))
    limited = _band_limited(low + high, cutoff)
    inner = slice(800, -800)  # apart from the edges, where tones begin
    np.testing.assert_allclose(limited[inner], low[inner], atol=0.02)
    assert len(limited) == len(time)


def test_no_band_no_change():
    samples = speech(100).astype(np.float64)
    assert (_band_limited(samples, None) == samples).all()


@pytest.mark.parametrize("n", [1, 2, 7, 16_001])
@pytest.mark.parametrize("slope", [0.0, 1.0])
def test_noise_has_power_one(n, slope):
    noise = _noise(n, slope, np.random.default_rng(3))
    assert noise.shape == (n,)
    assert np.mean(noise**2) == pytest.approx(1)


def test_pink_noise_falls_by_three_decibels_an_octave():
    def octave(slope, low):
        power = np.abs(np.fft.rfft(_noise(160_000, slope, np.random.default_rng(1)))) ** 2
        return power[10 * low : 20 * low].mean()

    for low in (200, 800, 2000):
        assert octave(0.0, low) / octave(0.0, 2 * low) == pytest.approx(1, rel=0.1)
        assert octave(1.0, low) / octave(1.0, 2 * low) == pytest.approx(2, rel=0.1)


def test_silence_stays_silent_but_for_noise():
    copies = [copy_of(np.zeros(4000, np.float32), seed) for seed in range(40)]
    silent = [not copy.any() for copy in copies]
    assert any(silent)
    assert not all(silent)
    loudest = max(np.sqrt(np.mean(copy**2)) for copy in copies) / 2**15
    assert loudest < 10 ** (-(14 + 8) / 20) * 1.05  # noise is 8 dB and more below the speech
