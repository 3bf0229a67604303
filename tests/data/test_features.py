import errno
import importlib.util
import io
import logging
import sys
import types
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from fbk_xattn.data import features
from fbk_xattn.data.features import (
    fbank,
    fbank_backend,
    fbank_kaldi_native,
    load_features,
    n_frames,
    read_audio,
)
from fbk_xattn.errors import InputError


def speech(seconds=1.3, seed=0):
    """Return audio with gliding harmonics, bursts and a noise floor, as 16-bit integers."""
    rng = np.random.default_rng(seed)
    time = np.arange(int(seconds * 16_000)) / 16_000
    phase = 2 * np.pi * np.cumsum(140 + 50 * np.sin(2 * np.pi * 1.7 * time)) / 16_000
    voice = sum(np.sin(k * phase) / k for k in range(1, 16))
    audio = 0.1 * voice * np.abs(np.sin(2 * np.pi * 3 * time)) ** 2
    audio += 0.05 * rng.standard_normal(len(time)) * (np.sin(2 * np.pi * 2 * time) > 0.9)
    audio += 0.0005 * rng.standard_normal(len(time))
    return np.round(audio * 2**15).astype(np.int16)


@pytest.fixture(scope="module")
def torchaudio_fbank():
    """Torchaudio's Kaldi filterbanks; its Python source alone where its library does not load."""
    try:
        from torchaudio.compliance import kaldi
    except (ImportError, OSError):
        folder = Path(importlib.util.find_spec("torchaudio").origin).parent
        source = folder / "compliance" / "kaldi.py"
        spec = importlib.util.spec_from_file_location("kaldi_of_torchaudio", source)
        kaldi = importlib.util.module_from_spec(spec)
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(sys.modules, "torchaudio", types.ModuleType("torchaudio"))
            spec.loader.exec_module(kaldi)
    return kaldi.fbank


@pytest.fixture
def new_backend():
    """Let the backend be chosen anew, in the test and after it."""
    fbank_backend.cache_clear()
    yield
    fbank_backend.cache_clear()


@pytest.fixture
def audio(tmp_path):
    """Write audio and return its path."""

    def write(name="a.wav", samples=None, rate=16_000, **options):
        soundfile.write(tmp_path / name, speech() if samples is None else samples, rate, **options)
        return tmp_path / name

    return write


def refused(location, n_bins=80):
    """Return the one-line message with which a location is refused; it begins with the location."""
    with pytest.raises(InputError) as caught:
        load_features(location, n_bins)
    message = str(caught.value)
    assert message.startswith(f"{location}: ")
    assert "\n" not in message
    return message.removeprefix(f"{location}: ")


def test_kaldi_native_fbank_equals_torchaudio(torchaudio_fbank):
    import torch

    samples = speech(seconds=3.0).astype(np.float32)
    ours = fbank_kaldi_native(samples)
    theirs = torchaudio_fbank(
        torch.from_numpy(samples)[None], num_mel_bins=80, sample_frequency=16_000, dither=0.0
    ).numpy()
    assert ours.shape == theirs.shape
    assert ours.dtype == np.float32
    assert np.abs(ours - theirs).max() < 0.01
    assert np.abs(ours - theirs).mean() < 1e-3
    assert theirs.std() > 1  # that the signal says something


@given(st.integers(400, 40_000))
@settings(max_examples=30, deadline=None)
def test_n_frames_is_the_number_of_frames_that_come_out(n_samples):
    assert len(fbank(np.ones(n_samples, dtype=np.float32))) == n_frames(n_samples)


@pytest.mark.parametrize(
    ("n_samples", "frames"), [(0, 0), (399, 0), (400, 1), (559, 1), (560, 2), (16_000, 98)]
)
def test_windows_of_25_ms_every_10_ms_fit_whole(n_samples, frames):
    assert n_frames(n_samples) == frames


def test_fbank_has_no_dither():
    samples = speech().astype(np.float32)
    assert np.array_equal(fbank(samples), fbank(samples))


def test_torchaudio_is_asked_for_the_same_features(monkeypatch, torchaudio_fbank):
    kaldi = types.ModuleType("torchaudio.compliance.kaldi")
    kaldi.fbank = torchaudio_fbank
    compliance = types.ModuleType("torchaudio.compliance")
    compliance.kaldi = kaldi
    monkeypatch.setitem(sys.modules, "torchaudio", types.ModuleType("torchaudio"))
    monkeypatch.setitem(sys.modules, "torchaudio.compliance", compliance)
    samples = speech().astype(np.float32)
    ours = features.fbank_torchaudio(samples)
    assert ours.shape == (n_frames(len(samples)), 80)
    assert np.abs(ours - fbank_kaldi_native(samples)).max() < 0.01


@pytest.mark.parametrize(
    ("name", "subtype"), [("a.wav", "PCM_16"), ("a.wav", "PCM_24"), ("a.flac", "PCM_16")]
)
def test_lossless_formats_give_the_same_features(audio, name, subtype):
    expected = fbank(speech().astype(np.float32))
    assert np.array_equal(load_features(audio(name, subtype=subtype)), expected)


def test_audio_stored_as_floats_gives_the_same_features(audio):
    path = audio(samples=speech().astype(np.float32) / 2**15, subtype="FLOAT")
    assert np.array_equal(load_features(path), fbank(speech().astype(np.float32)))


def test_opus_gives_nearly_the_same_features(audio):
    expected = fbank(speech().astype(np.float32))
    coded = load_features(audio("a.ogg", format="OGG", subtype="OPUS"))
    assert coded.shape == expected.shape
    # A lossy codec does not keep the weak bins; bins with energy it does.
    loud = expected > np.quantile(expected, 0.7)
    assert np.abs(coded - expected)[loud].mean() < 0.5


def test_samples_are_in_the_range_of_16_bit_integers(audio):
    assert np.array_equal(read_audio(audio()), speech().astype(np.float32))


def test_channels_are_averaged(audio):
    mono = speech()
    path = audio(samples=np.stack([mono // 2 * 2, np.zeros_like(mono)], axis=1))
    assert np.array_equal(read_audio(path), (mono // 2).astype(np.float32))


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_npy_files_are_taken_as_they_are(tmp_path, dtype):
    stored = np.random.default_rng(0).standard_normal((7, 80)).astype(dtype)
    np.save(tmp_path / "a.npy", stored)
    loaded = load_features(tmp_path / "a.npy")
    assert loaded.dtype == np.float32
    assert np.array_equal(loaded, stored.astype(np.float32))


def test_slices_of_an_uncompressed_zip_are_read_in_place(tmp_path, audio):
    stored = np.random.default_rng(0).standard_normal((7, 80)).astype(np.float32)
    array = io.BytesIO()
    np.save(array, stored)
    flac = audio("a.flac").read_bytes()
    parts = {"x.npy": array.getvalue(), "y.flac": flac}
    with zipfile.ZipFile(tmp_path / "f.zip", "w", zipfile.ZIP_STORED) as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
    whole = (tmp_path / "f.zip").read_bytes()
    place = {
        name: f"{tmp_path}/f.zip:{whole.index(data)}:{len(data)}" for name, data in parts.items()
    }
    assert np.array_equal(load_features(place["x.npy"]), stored)
    assert np.array_equal(load_features(place["y.flac"]), fbank(speech().astype(np.float32)))


@pytest.mark.parametrize("name", ["a.wav", "a.npy", "f.zip:0:10", "f.zip"])
def test_missing_file_is_named(tmp_path, name):
    assert "no such file" in refused(f"{tmp_path}/{name}")


@pytest.mark.parametrize("content", [b"", b"not audio at all\n", b"RIFF\x00\x00\x00\x00WAVE"])
def test_file_that_is_no_audio_is_refused(tmp_path, content):
    path = tmp_path / "a.wav"
    path.write_bytes(content)
    assert "unreadable audio" in refused(path)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e38, -2e38])
def test_samples_that_are_not_finite_are_refused(audio, value):
    samples = speech().astype(np.float32) / 2**15
    samples[700] = value
    path = audio(samples=samples, subtype="FLOAT")
    assert refused(path).startswith("samples hold NaN or infinity or are far too loud, expected")


@pytest.mark.parametrize("factor", [1e12, 1e15, 1e32])
def test_samples_too_loud_for_any_feature_are_refused(audio, factor):
    samples = speech().astype(np.float32) * factor
    assert "NaN or infinity" in refused(audio(samples=samples, subtype="FLOAT"))


@pytest.mark.parametrize("location", ["a.wav", "a.npy", "f.zip:0:9"])
def test_file_that_may_not_be_read_is_named(tmp_path, monkeypatch, location):
    for name in ("a.wav", "a.npy", "f.zip"):
        (tmp_path / name).write_bytes(bytes(99))

    def deny(path, *_, **__):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    for opener in ("builtins.open", "io.open", "soundfile.SoundFile"):
        monkeypatch.setattr(opener, deny)
    assert "Permission denied" in refused(f"{tmp_path}/{location}")


def test_name_that_no_file_can_have_is_refused(tmp_path):
    assert "File name too long" in refused(tmp_path / f"{'a' * 300}.wav")


@pytest.mark.parametrize("n_samples", [0, 1, 399])
def test_audio_shorter_than_a_window_is_refused(audio, n_samples):
    assert f"{n_samples} samples" in refused(audio(samples=speech()[:n_samples]))


def test_audio_at_another_rate_is_refused(audio):
    assert "8000 Hz, expected 16000 Hz" in refused(audio(rate=8_000))


@pytest.mark.parametrize("n_bins", [40, 81])
def test_audio_for_another_number_of_bins_is_refused(audio, n_bins):
    assert f"expected (frames, {n_bins})" in refused(audio(), n_bins)


@pytest.mark.parametrize("shape", [(7, 40), (0, 80), (80,), (1, 7, 80), ()])
def test_array_of_another_shape_is_refused(tmp_path, shape):
    np.save(tmp_path / "a.npy", np.zeros(shape, dtype=np.float32))
    assert f"shape {shape}, expected (frames, 80)" in refused(tmp_path / "a.npy")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(tmp_path, value):
    array = np.zeros((7, 80), dtype=np.float32)
    array[3, 4] = value
    np.save(tmp_path / "a.npy", array)
    assert "NaN or infinity" in refused(tmp_path / "a.npy")


class Marker:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_pickled_objects_are_refused_and_not_run(tmp_path):
    np.save(tmp_path / "a.npy", np.array([Marker(tmp_path / "ran")]), allow_pickle=True)
    assert "unreadable .npy" in refused(tmp_path / "a.npy")
    assert not (tmp_path / "ran").exists()


def npz_bytes():
    written = io.BytesIO()
    np.savez(written, x=np.zeros((7, 80), dtype=np.float32))
    return written.getvalue()


def npy_bytes(array):
    written = io.BytesIO()
    np.save(written, array)
    return written.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"text",
        npy_bytes(np.zeros((7, 80)))[:-1],
        npy_bytes(np.zeros((7, 80)))[:40],
        npz_bytes(),
        npz_bytes()[:-9],
        npy_bytes(np.array(["a"])),
        npy_bytes(np.zeros(3, dtype=[("a", "f4"), ("b", "f4")])),
    ],
    ids=["empty", "text", "cut", "header cut", "npz", "npz cut", "strings", "records"],
)
def test_file_that_is_no_array_of_floats_is_refused(tmp_path, content):
    (tmp_path / "a.npy").write_bytes(content)
    assert "unreadable .npy" in refused(tmp_path / "a.npy")


@pytest.mark.parametrize(
    "slice_", ["0:", ":", "x:3", "0:1.5", "0:0", "-5:5", "0:-1", "0:99999", "99999:10"]
)
def test_slice_that_is_not_there_is_refused(tmp_path, slice_):
    (tmp_path / "f.zip").write_bytes(npy_bytes(np.zeros((7, 80))))
    assert "expected" in refused(f"{tmp_path}/f.zip:{slice_}")


@pytest.mark.parametrize(("slice_", "there"), [(f"9:{10**18}", 91), (f"{10**30}:9", 0)])
def test_slice_that_no_memory_could_hold_is_refused(tmp_path, slice_, there):
    (tmp_path / "f.zip").write_bytes(bytes(100))
    assert f"{there} bytes there, expected " in refused(f"{tmp_path}/f.zip:{slice_}")


def test_slice_cut_inside_an_array_is_refused(tmp_path):
    data = npy_bytes(np.zeros((7, 80), dtype=np.float32))
    (tmp_path / "f.zip").write_bytes(data)
    assert "unreadable .npy" in refused(f"{tmp_path}/f.zip:0:{len(data) - 4}")


def backend_messages(caplog):
    return [r.getMessage() for r in caplog.records if r.name == features.__name__]


@pytest.mark.usefixtures("new_backend")
@pytest.mark.parametrize("error", [OSError("no library\nsecond line"), OSError(), ImportError()])
def test_kaldi_native_is_chosen_where_torchaudio_does_not_load(monkeypatch, caplog, error):
    class Broken:
        def find_spec(self, name, *_):
            if name == "torchaudio":
                raise error

    for name in [n for n in sys.modules if n.split(".")[0] == "torchaudio"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    with caplog.at_level(logging.INFO):
        assert fbank_backend() is fbank_kaldi_native
        fbank(speech().astype(np.float32))
    (message,) = backend_messages(caplog)
    assert "kaldi-native-fbank" in message
    assert "second line" not in message


@pytest.mark.usefixtures("new_backend")
def test_torchaudio_is_chosen_where_it_loads(monkeypatch, caplog):
    compliance = types.ModuleType("torchaudio.compliance")
    compliance.kaldi = types.ModuleType("torchaudio.compliance.kaldi")
    monkeypatch.setitem(sys.modules, "torchaudio", types.ModuleType("torchaudio"))
    monkeypatch.setitem(sys.modules, "torchaudio.compliance", compliance)
    with caplog.at_level(logging.INFO):
        assert fbank_backend() is features.fbank_torchaudio
        fbank_backend()
    assert backend_messages(caplog) == ["features through torchaudio"]
