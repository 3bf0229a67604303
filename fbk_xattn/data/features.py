"""Log-mel filterbank features: from audio, from ``.npy`` files, from uncompressed zip archives."""

from __future__ import annotations

import io
import logging
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from fbk_xattn.errors import InputError
from fbk_xattn.files import reading_arrays

logger = logging.getLogger(__name__)

SAMPLE_RATE = 16_000
FRAME_LENGTH = 400  # samples: 25 ms
FRAME_SHIFT = 160  # samples: 10 ms
N_BINS = 80
# Manifests count frames in several ways: with or without windows that the end of the audio cuts.
N_FRAMES_LEEWAY = 5
NPY_MAGIC = b"\x93NUMPY"

FloatArray = NDArray[np.float32]


def n_frames(n_samples: int) -> int:
    """Return how many 25 ms frames, 10 ms apart, fit into ``n_samples`` at 16 kHz."""
    return 0 if n_samples < FRAME_LENGTH else 1 + (n_samples - FRAME_LENGTH) // FRAME_SHIFT


def check_length(location: str | Path, found: int, told: int) -> None:
    """Check a number of frames against ``n_frames`` of the manifest.

    Raises:
        InputError: They differ by more than 5 frames and more than 2 %.
    """
    leeway = max(N_FRAMES_LEEWAY, told // 50)
    if abs(found - told) > leeway:
        raise InputError(
            f"{location}: {found} frames, but n_frames of the manifest is {told}, expected them to "
            f"differ by at most {leeway}"
        )


def fbank_torchaudio(samples: FloatArray) -> FloatArray:
    """Return the filterbanks of :func:`fbank` through torchaudio."""
    import torch
    from torchaudio.compliance import kaldi

    features = kaldi.fbank(
        torch.from_numpy(samples).unsqueeze(0),
        num_mel_bins=N_BINS,
        sample_frequency=SAMPLE_RATE,
        dither=0.0,
    )
    return np.asarray(features.numpy(), dtype=np.float32)


def fbank_kaldi_native(samples: FloatArray) -> FloatArray:
    """Return the filterbanks of :func:`fbank` through kaldi-native-fbank."""
    import kaldi_native_fbank as knf

    options = knf.FbankOptions()
    options.frame_opts.samp_freq = SAMPLE_RATE
    options.frame_opts.dither = 0.0
    options.frame_opts.snip_edges = True
    options.mel_opts.num_bins = N_BINS
    options.mel_opts.low_freq = 20.0
    options.mel_opts.high_freq = 0.0
    options.energy_floor = 1.0
    computer = knf.OnlineFbank(options)
    computer.accept_waveform(SAMPLE_RATE, samples)
    computer.input_finished()
    frames = [computer.get_frame(i) for i in range(computer.num_frames_ready)]
    return np.stack(frames).astype(np.float32)


@cache
def fbank_backend() -> Callable[[FloatArray], FloatArray]:
    """Choose torchaudio where it imports, else kaldi-native-fbank, and log the choice once."""
    try:
        # Next to a CPU build of torch its extension library fails to load: an OSError.
        from torchaudio.compliance import kaldi  # noqa: F401
    except (ImportError, OSError) as error:
        reason = [*str(error).splitlines(), type(error).__name__][0]
        logger.info("features through kaldi-native-fbank (torchaudio: %s)", reason)
        return fbank_kaldi_native
    logger.info("features through torchaudio")
    return fbank_torchaudio


def fbank(samples: FloatArray) -> FloatArray:
    """Return Kaldi log-mel filterbanks, as fairseq computes them, without dither.

    Args:
        samples: ``(n_samples,)`` at 16 kHz, in the range of 16-bit integers.

    Returns:
        ``(T, 80)``, one row every 10 ms of a 25 ms window. The two backends differ by less than
        0.01.

    Raises:
        InputError: Shorter than one window.
    """
    if n_frames(len(samples)) == 0:
        raise InputError(
            f"{len(samples)} samples of audio, expected at least {FRAME_LENGTH} (25 ms at 16 kHz)"
        )
    return fbank_backend()(np.ascontiguousarray(samples, dtype=np.float32))


def read_audio(file: Path | BinaryIO) -> FloatArray:
    """Read an audio file that soundfile knows (WAV, FLAC, Ogg Vorbis or Opus, MP3).

    Args:
        file: Path, or an open binary file.

    Returns:
        ``(n_samples,)`` at 16 kHz in the range of 16-bit integers; the mean of several channels.

    Raises:
        InputError: Unreadable, of another sampling rate, or with samples that are not finite.
    """
    import soundfile

    try:
        samples, rate = soundfile.read(file, dtype="float32", always_2d=True)
    except (RuntimeError, OSError, TypeError) as error:
        raise InputError(f"unreadable audio ({error}), expected WAV, FLAC, Ogg or MP3") from None
    if rate != SAMPLE_RATE:
        raise InputError(f"audio at {rate} Hz, expected {SAMPLE_RATE} Hz")
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = np.asarray(samples.mean(axis=1) * 2**15, dtype=np.float32)
        # Features are of energies: kaldi-native-fbank gives up where they are not numbers.
        finite = np.isfinite(np.square(scaled)).all()
    if not finite:
        raise InputError("samples hold NaN or infinity or are far too loud, expected -1 to 1")
    return scaled


def load_features(location: str | Path, n_bins: int = N_BINS) -> FloatArray:
    """Load or compute the features of one utterance.

    Args:
        location: Audio file, ``.npy`` file, or ``archive.zip:offset:length`` pointing at either in
            an uncompressed zip archive (fairseq's notation).
        n_bins: Expected number of mel bins.

    Returns:
        ``(T, n_bins)``, ``T`` at least 1, before any normalisation.

    Raises:
        InputError: Missing, unreadable, empty or of another shape; the message names the location.
    """
    location = str(location)
    try:
        features = _load(location)
        if features.ndim != 2 or features.shape[0] == 0 or features.shape[1] != n_bins:
            raise InputError(f"features of shape {features.shape}, expected (frames, {n_bins})")
        if not np.isfinite(features).all():
            raise InputError("features hold NaN or infinity, expected finite values")
    except InputError as error:
        raise InputError(f"{location}: {error}") from None
    except OSError as error:
        reason = error.strerror or error
        raise InputError(
            f"{location}: cannot be read ({reason}), expected a readable file"
        ) from None
    return features


def _load(location: str) -> FloatArray:
    parts = location.rsplit(":", 2)
    in_archive = len(parts) == 3 and parts[0].endswith(".zip")
    path = Path(parts[0] if in_archive else location)
    if not path.is_file():
        raise InputError("no such file, expected audio or features")
    if not in_archive:
        return _read_npy(path) if path.suffix == ".npy" else fbank(read_audio(path))
    try:
        offset, length = int(parts[1]), int(parts[2])
    except ValueError:
        raise InputError("expected archive.zip:offset:length with whole numbers") from None
    if offset < 0 or length <= 0:
        raise InputError("expected archive.zip:offset:length with a length of at least 1")
    # Before reading, which would make room for as many bytes as are asked for.
    available = max(0, path.stat().st_size - offset)
    if available < length:
        raise InputError(f"{available} bytes there, expected {length}")
    with path.open("rb") as archive:
        archive.seek(offset)
        data = archive.read(length)
    file = io.BytesIO(data)
    return _read_npy(file) if data.startswith(NPY_MAGIC) else fbank(read_audio(file))


def _read_npy(file: Path | BinaryIO) -> FloatArray:
    try:
        with reading_arrays():
            return np.asarray(np.load(file, allow_pickle=False), dtype=np.float32)
    except (ValueError, TypeError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise InputError(f"unreadable .npy ({error}), expected an array of floats") from None
