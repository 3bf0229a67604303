import base64
import io

import numpy as np
import pytest
import soundfile

from fbk_xattn.errors import InputError
from fbk_xattn.report.html.audio import AudioSource


@pytest.fixture
def tone(tmp_path):
    def write(name="tone.wav", seconds=1.0, rate=16_000, channels=1):
        samples = 0.3 * np.sin(3000 * np.arange(int(seconds * rate)) / rate)
        file = tmp_path / name
        soundfile.write(file, np.repeat(samples[:, None], channels, axis=1), rate)
        return file

    return write


@pytest.mark.parametrize(
    ("form", "mime", "within"), [("opus", "audio/ogg", 0.05), ("flac", "audio/flac", 1e-4)]
)
def test_audio_is_heard_again(tone, form, mime, within):
    file = tone(channels=2)
    url = AudioSource({"u": file}, form).embedded("u", 98)
    head, data = url.split(",")
    assert head == f"data:{mime};base64"
    heard, rate = soundfile.read(io.BytesIO(base64.b64decode(data)))
    said, _ = soundfile.read(file)
    assert (rate, heard.shape) == (16_000, (16_000,))
    inside = slice(1000, 15_000)  # Opus overshoots where a tone breaks off
    assert np.abs(heard - said[:, 0])[inside].max() < within


def test_an_utterance_without_file_has_none():
    assert AudioSource({}).embedded("u", 10) is None


def test_audio_of_another_utterance_is_an_error(tone):
    with pytest.raises(InputError, match=r"1\.00 s of audio, but utterance 'u' has 2\.00 s"):
        AudioSource({"u": tone()}).embedded("u", 200)


def test_a_rate_that_opus_has_not_is_an_error(tone):
    source = {"u": tone(rate=22_050)}
    with pytest.raises(InputError, match=r"22050 Hz, which Opus has not.*or --audio flac"):
        AudioSource(source).embedded("u", 98)
    assert AudioSource(source, "flac").embedded("u", 98)


def test_what_is_no_audio_is_an_error(tmp_path):
    (tmp_path / "x.wav").write_text("no audio")
    for name in ("x.wav", "missing.wav"):
        with pytest.raises(InputError, match=f"{name}: unreadable audio"):
            AudioSource({"u": tmp_path / name}).embedded("u", 98)
