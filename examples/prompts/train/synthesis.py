"""Speech for sentences: Pico (py-nanotts) and Debian's flite and festival voices."""

from __future__ import annotations

import logging
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fbk_xattn.data.features import read_audio
from fbk_xattn.data.prompts_texts import Language
from fbk_xattn.errors import InputError

logger = logging.getLogger(__name__)

# Voice and how often it speaks: engine, name there.
VOICES: dict[Language, dict[tuple[str, str], float]] = {
    "en": {
        ("pico", "en-US"): 0.25,
        ("pico", "en-GB"): 0.2,
        ("flite", "slt"): 0.2,
        ("flite", "rms"): 0.15,
        ("flite", "awb"): 0.1,
        ("flite", "kal16"): 0.1,
    },
    "it": {
        ("pico", "it-IT"): 0.4,
        ("festival", "lp_diphone"): 0.3,
        ("festival", "pc_diphone"): 0.3,
    },
}
PITCH = {"slt": 170, "rms": 95, "awb": 120, "kal16": 105}  # Hz, of flite's voices


@dataclass(frozen=True)
class Spoken:
    """A sentence and how it is to be spoken.

    Attributes:
        text: Lower-case words.
        engine: ``pico``, ``flite`` or ``festival``.
        voice: Name of the voice there.
        stretch: Of durations, about 1.
        pitch: Of the fundamental frequency, about 1 (festival keeps its own).
    """

    text: str
    engine: str
    voice: str
    stretch: float
    pitch: float


class EngineCrashError(InputError):
    """An engine was ended by a signal; another sentence may still be spoken."""


def speak(sentences: Sequence[Spoken]) -> list[NDArray[np.float32]]:
    """Synthesise sentences.

    Args:
        sentences: All of one engine; festival starts once for all of them.

    Returns:
        For each ``(n_samples,)`` at 16 kHz in the range of 16-bit integers; ``(0,)``, with a
        warning, for a sentence that the engine crashes on.

    Raises:
        InputError: An engine is not installed, fails, or crashes on each of several sentences; the
            message has its own words.
    """
    if not sentences:
        return []
    if sentences[0].engine == "pico":
        return [_pico(sentence) for sentence in sentences]
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder, f"{number}.wav") for number in range(len(sentences))]
        crashes = _write(sentences, files)
        if len(crashes) == len(sentences) > 1:
            raise InputError(
                f"{sentences[0].engine} {crashes[files[0]]} on each of {len(crashes)} sentences, "
                "expected it to work"
            )
        return [
            np.zeros(0, np.float32) if file in crashes else _read(sentence, file)
            for sentence, file in zip(sentences, files, strict=True)
        ]


def _write(sentences: Sequence[Spoken], files: Sequence[Path]) -> dict[Path, EngineCrashError]:
    """Speak to files; returns those whose sentences the engine crashes on, one by one."""
    try:
        if sentences[0].engine == "festival":
            _festival(sentences, files)
        else:
            for sentence, file in zip(sentences, files, strict=True):
                _flite(sentence, file)
    except EngineCrashError as error:
        # Festival dies of a sentence (a diphone that the voice lacks) with all that are behind it.
        if half := len(sentences) // 2:
            return _write(sentences[:half], files[:half]) | _write(sentences[half:], files[half:])
        logger.warning(
            "%s, voice %s: %s on %r, left out",
            *(sentences[0].engine, sentences[0].voice, error, sentences[0].text),
        )
        return {files[0]: error}
    return {}


def _read(sentence: Spoken, file: Path) -> NDArray[np.float32]:
    # An engine may end well and yet leave nothing, or speak with a voice of another rate.
    try:
        if not file.is_file():
            raise InputError("wrote no audio")
        return read_audio(file)
    except InputError as error:
        raise InputError(
            f"{sentence.engine}, voice {sentence.voice}: {error} for {sentence.text!r}"
        ) from None


def _pico(sentence: Spoken) -> NDArray[np.float32]:
    try:
        from py_nanotts import NanoTTS
    except ImportError as error:
        raise InputError(
            f"pico: py_nanotts not found ({error}), expected py-nanotts: pip install py-nanotts"
        ) from None
    try:
        data = NanoTTS().speak(
            sentence.text, voice=sentence.voice, speed=1 / sentence.stretch, pitch=sentence.pitch
        )
    except Exception as error:  # whatever the package raises
        raise InputError(f"pico, voice {sentence.voice}: {error} for {sentence.text!r}") from None
    return np.frombuffer(data, np.int16).astype(np.float32)


def _flite(sentence: Spoken, file: Path) -> None:
    pitch = PITCH[sentence.voice] * sentence.pitch
    _run(
        [
            *("flite", "-voice", sentence.voice, "-t", sentence.text, "-o", str(file)),
            *("--setf", f"duration_stretch={sentence.stretch:.3f}"),
            *("--setf", f"int_f0_target_mean={pitch:.1f}"),
        ]
    )


def _festival(sentences: Sequence[Spoken], files: Sequence[Path]) -> None:
    lines = []
    for sentence, file in zip(sentences, files, strict=True):
        text = sentence.text.replace("\\", "").replace('"', "")
        lines += [
            f"(voice_{sentence.voice})",
            f"(Parameter.set 'Duration_Stretch {sentence.stretch:.3f})",
            f'(set! spoken (Utterance Text "{text}"))',
            "(utt.synth spoken)",
            f'(utt.save.wave spoken "{file}" \'riff)',
        ]
    script = files[0].with_name("script.scm")
    # Festival's Italian voices read Latin-1.
    script.write_bytes("\n".join([*lines, ""]).encode("latin-1", "replace"))
    _run(["festival", "-b", str(script)])


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, check=False)
    except (FileNotFoundError, PermissionError):
        raise InputError(
            f"{command[0]}: not installed, expected Debian's packages flite, festival, "
            "festvox-italp16k and festvox-itapc16k"
        ) from None
    if done.returncode:
        lines = (done.stderr + done.stdout).decode(errors="replace").strip().split("\n")
        if done.returncode < 0:
            raise EngineCrashError(
                f"crashed (signal {-done.returncode}: {lines[0] or 'it said nothing'})"
            )
        raise InputError(
            f"{command[0]} failed with code {done.returncode}: {lines[0] or 'it said nothing'}"
        )
