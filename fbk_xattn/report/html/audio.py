"""Audio of utterances inside a page."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fbk_xattn.errors import InputError
from fbk_xattn.report.html.packing import encode

SECONDS_PER_FRAME = 0.01
# Windows of 25 ms begin where the shift is 10 ms: a few frames are lost at the end.
SAME_LENGTH_WITHIN = 0.1
OPUS_RATES = (8000, 12000, 16000, 24000, 48000)


@dataclass(frozen=True)
class AudioFormat:
    """How soundfile writes a format, and what browsers call it."""

    container: str
    subtype: str
    mime: str


FORMATS: Mapping[str, AudioFormat] = {
    "opus": AudioFormat("OGG", "OPUS", "audio/ogg"),
    "flac": AudioFormat("FLAC", "PCM_16", "audio/flac"),
}


@dataclass(frozen=True)
class AudioSource:
    """Where the audio of utterances is.

    Attributes:
        files: Utterance id to audio file.
        form: Name in :data:`FORMATS`.
    """

    files: Mapping[str, Path] = field(default_factory=dict)
    form: str = "opus"

    def embedded(self, utterance_id: str, n_frames: int) -> str | None:
        """Return the audio of an utterance as a data URL, ``None`` where no file is known.

        Args:
            utterance_id: Of the store.
            n_frames: Of its features, which the audio must fit.

        Raises:
            InputError: The file cannot be read, or is of another length.
        """
        file = self.files.get(utterance_id)
        if file is None:
            return None
        data, seconds = convert(file, FORMATS[self.form])
        expected = n_frames * SECONDS_PER_FRAME
        if abs(seconds - expected) > SAME_LENGTH_WITHIN:
            raise InputError(
                f"{file}: {seconds:.2f} s of audio, but utterance {utterance_id!r} has "
                f"{expected:.2f} s of features; expected the manifest that was decoded"
            )
        return f"data:{FORMATS[self.form].mime};base64,{encode(data)}"


def convert(file: Path, form: AudioFormat) -> tuple[bytes, float]:
    """Read an audio file and write it again in a format that browsers play, with one channel.

    Returns:
        The new file, and its length in seconds.

    Raises:
        InputError: It cannot be read, or its sampling rate is none of the format's.
    """
    import soundfile

    try:
        samples, rate = soundfile.read(file, dtype="float32", always_2d=True)
    except (RuntimeError, OSError, TypeError) as error:
        raise InputError(
            f"{file}: unreadable audio ({error}), expected WAV, FLAC, Ogg or MP3"
        ) from None
    if form.subtype == "OPUS" and rate not in OPUS_RATES:
        raise InputError(
            f"{file}: audio at {rate} Hz, which Opus has not; expected one of "
            f"{', '.join(map(str, OPUS_RATES))} Hz, or --audio flac"
        )
    written = io.BytesIO()
    soundfile.write(
        written, samples.mean(axis=1), rate, format=form.container, subtype=form.subtype
    )
    return written.getvalue(), len(samples) / rate
