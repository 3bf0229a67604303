"""Other recordings of the same speech: tempo and pitch, telephone band, noise, loudness."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft, next_fast_len, rfft, rfftfreq
from scipy.signal import resample_poly

from fbk_xattn.data.features import SAMPLE_RATE

Samples = NDArray[np.float32]

FULL_SCALE = 2.0**15
# Cut-off frequency in Hz and its share: 8 and 11 kHz recordings among those at 16 kHz.
BANDS = ((None, 0.45), (4000.0, 0.35), (5500.0, 0.2))
NOISY = 0.5
NOISE_SLOPES = (0.0, 1.0)  # of power over frequency, white to pink
SIGNAL_TO_NOISE = (8.0, 35.0)  # dB
LOUDNESS = (-30.0, -14.0)  # dB below full scale, root mean square
TEMPO = (0.88, 1.14)


def augmented(samples: Samples, generator: np.random.Generator) -> Samples:
    """Return a changed copy of some speech.

    Args:
        samples: ``(n,)`` at 16 kHz in the range of 16-bit integers.
        generator: Of all choices.

    Returns:
        ``(m,)`` in the same range: tempo and pitch times 0.88 to 1.14 together, band limited to 4
        or 5.5 kHz in 55 % of the copies, noise from white to pink at 8 to 35 dB in half of them,
        loudness -30 to -14 dB, rounded and clipped to 16 bits. Silence stays silent but for noise.
    """
    if not len(samples):
        return np.zeros(0, np.float32)
    tempo = round(100 * generator.uniform(*TEMPO))
    changed = resample_poly(samples.astype(np.float64), 100, tempo)
    band = generator.choice(len(BANDS), p=[share for _, share in BANDS])
    changed = _band_limited(changed, BANDS[band][0])
    power = float(np.mean(changed**2)) or 1.0
    if generator.random() < NOISY:
        decibels = generator.uniform(*SIGNAL_TO_NOISE)
        noise = _noise(len(changed), generator.uniform(*NOISE_SLOPES), generator)
        changed = changed + noise * np.sqrt(power * 10 ** (-decibels / 10))
        power *= 1 + 10 ** (-decibels / 10)
    loudness = FULL_SCALE * 10 ** (generator.uniform(*LOUDNESS) / 20)
    scaled = np.rint(changed * (loudness / np.sqrt(power)))
    return np.clip(scaled, -FULL_SCALE, FULL_SCALE - 1).astype(np.float32)


def _band_limited(samples: NDArray[np.float64], cutoff: float | None) -> NDArray[np.float64]:
    if cutoff is None:
        return samples
    n = next_fast_len(len(samples), real=True)
    spectrum, frequencies = rfft(samples, n), rfftfreq(n, 1 / SAMPLE_RATE)
    # A tenth of the band to fade out in, as recordings do.
    spectrum *= np.clip((cutoff - frequencies) / (0.1 * cutoff), 0.0, 1.0)
    return np.asarray(irfft(spectrum, n)[: len(samples)])


def _noise(n: int, slope: float, generator: np.random.Generator) -> NDArray[np.float64]:
    n_fast = next_fast_len(n, real=True)
    spectrum = rfft(generator.standard_normal(n_fast))
    spectrum *= np.maximum(rfftfreq(n_fast, 1 / SAMPLE_RATE), 50.0) ** (-slope / 2)
    noise = irfft(spectrum, n_fast)[:n]
    return np.asarray(noise / max(float(np.sqrt(np.mean(noise**2))), 1e-9))
