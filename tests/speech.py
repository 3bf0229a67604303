"""Sounds that are like speech."""

import numpy as np


def chirps(rng, seconds):
    """Return audio with the pitch glides and bursts of speech, ``(n_samples,)`` in -1 to 1."""
    time = np.arange(int(seconds * 16_000)) / 16_000
    pitch = 120 + 60 * np.sin(2 * np.pi * rng.uniform(0.5, 2) * time)
    phase = 2 * np.pi * np.cumsum(pitch) / 16_000
    voice = sum(np.sin(k * phase) / k for k in range(1, 12))
    envelope = np.abs(np.sin(2 * np.pi * rng.uniform(1, 4) * time + rng.uniform(0, 6)))
    return 0.1 * envelope * voice + 0.003 * rng.standard_normal(len(time))
