"""Telephone prompts of Asterisk, the same sentences spoken in English and in Italian."""

from __future__ import annotations

import gzip
import logging
import os
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import soundfile
from tqdm import tqdm

from fbk_xattn.data.manifest import ManifestRow, write_manifest
from fbk_xattn.data.prompts_texts import (
    DEV_NAMES,
    TEST_NAMES,
    Language,
    PromptText,
    parse_texts,
)
from fbk_xattn.errors import InputError
from fbk_xattn.files import whole_file

logger = logging.getLogger(__name__)

Speaker = Literal["en_allison", "it_carlo"]
Split = Literal["train", "dev", "test"]

VOICES: dict[Language, tuple[Speaker, str]] = {
    "en": ("en_allison", "en_US_f_Allison"),
    "it": ("it_carlo", "it_IT_m_Carlo"),
}
SPLITS: tuple[Split, ...] = ("train", "dev", "test")
TASKS = ("asr_en", "asr_it", "st_en_it", "st_it_en")

SAMPLE_RATE = 16_000
SAMPLES_PER_BYTE = 2  # G.722 at 64 kbit/s
FRAME_LENGTH = 400
FRAME_SHIFT = 160
MIN_SECONDS = 0.3
MAX_SECONDS = 20.0

# Spelling alphabets: a letter of one language is no translation of the other's.
UNTRANSLATED_FOLDERS = ("letters", "phonetic")


@dataclass(frozen=True)
class Prompt:
    """One prompt spoken in one language.

    Attributes:
        name: Path of the prompt below its voice's folder, without extension: ``dictate/forhelp``.
        lang: Language spoken.
        speaker: Voice.
        audio: The ``.g722`` file.
        text: Transcript: lower-case words, no punctuation but apostrophes inside words, numbers
            as words.
        translatable: Whether the prompt of the same name in the other language is its translation.
    """

    name: str
    lang: Language
    speaker: Speaker
    audio: Path
    text: str
    translatable: bool


def split_of(name: str) -> Split:
    """Tell which split a prompt belongs to, the same for both voices.

    Args:
        name: Name of a prompt, see :class:`Prompt`.

    Returns:
        ``dev`` or ``test`` for the names of the tables, otherwise ``train``.
    """
    if name in DEV_NAMES:
        return "dev"
    return "test" if name in TEST_NAMES else "train"


def read_prompts(audio_dir: Path | str) -> list[Prompt]:
    """Read the spoken prompts of both voices, whatever their length.

    Tones and silence are left out, and so are recordings that the texts do not name; both are
    logged by name.

    Args:
        audio_dir: Folder that has, at any depth, what the Debian packages
            ``asterisk-core-sounds-{en,it}-g722`` (recordings) and ``asterisk-core-sounds-{en,it}``
            (texts) hold.

    Returns:
        The prompts, English first, sorted by name.

    Raises:
        InputError: The folder or one of the four parts is missing, or a text file is unreadable.
    """
    audio_dir = Path(audio_dir)
    if not audio_dir.is_dir():
        raise InputError(
            f"{audio_dir}: no such folder, expected the unpacked Debian packages "
            "asterisk-core-sounds-{en,it}-g722 and asterisk-core-sounds-{en,it}"
        )
    folders, text_files = _locate(audio_dir)
    recordings = {lang: _recordings(folders[lang]) for lang in VOICES}
    texts = {lang: _read_texts(text_files[lang], lang) for lang in VOICES}
    # The texts write some names in another case than the recordings.
    by_folded_name = {
        lang: {name.casefold(): text for name, text in texts[lang].items()} for lang in VOICES
    }

    def text_of(lang: Language, name: str) -> PromptText | None:
        return texts[lang].get(name) or by_folded_name[lang].get(name.casefold())

    # One language may describe a tone in brackets and the other in plain words.
    not_speech = {
        name.casefold() for lang in VOICES for name, text in texts[lang].items() if not text.text
    }
    prompts = []
    for lang, (speaker, folder) in VOICES.items():
        other: Language = "it" if lang == "en" else "en"
        untold, silent = [], []
        for name, path in sorted(recordings[lang].items()):
            told = text_of(lang, name)
            if told is None:
                untold.append(name)
            elif name.casefold() in not_speech:
                silent.append(name)
            else:
                translation = text_of(other, name) if name in recordings[other] else None
                translatable = (
                    translation is not None
                    and not (told.foreign or translation.foreign)
                    and name.partition("/")[0] not in UNTRANSLATED_FOLDERS
                )
                prompts.append(Prompt(name, lang, speaker, path, told.text, translatable))
        _log_left_out(untold, folder, f"not in {text_files[lang].name}")
        _log_left_out(silent, folder, "no speech")
    return prompts


def build_prompts_corpus(audio_dir: Path | str, output: Path | str) -> dict[str, int]:
    """Decode the prompts and write their manifests.

    The audio goes to ``output/audio/<speaker>/<name>.flac`` (16 kHz, mono, 16 bits); what is
    there already stays. Prompts shorter than 0.3 s or longer than 20 s are left out, and logged
    by name.

    Args:
        audio_dir: See :func:`read_prompts`.
        output: Folder of the corpus, created if need be. It gets ``{split}_{task}.tsv`` for the
            splits ``train``, ``dev``, ``test`` and the tasks ``asr_en``, ``asr_it``, ``st_en_it``,
            ``st_it_en``; their audio paths are relative to it.

    Returns:
        Number of rows of each manifest, by its name without extension (``train_asr_en``).

    Raises:
        InputError: See :func:`read_prompts`; the package G722 is missing; a recording is empty or
            unreadable; a sentence is in two splits; the output cannot be written.
    """
    output = Path(output)
    decode = _decoder()
    prompts = read_prompts(audio_dir)
    _check_splits(prompts)
    n_samples = {prompt.audio: _n_samples(prompt.audio) for prompt in prompts}
    kept = []
    for speaker, _ in VOICES.values():
        own = [prompt for prompt in prompts if prompt.speaker == speaker]
        seconds = {prompt.name: n_samples[prompt.audio] / SAMPLE_RATE for prompt in own}
        short = [name for name, duration in seconds.items() if duration < MIN_SECONDS]
        long = [name for name, duration in seconds.items() if duration > MAX_SECONDS]
        _log_left_out(short, speaker, f"shorter than {MIN_SECONDS:g} s")
        _log_left_out(long, speaker, f"longer than {MAX_SECONDS:g} s")
        kept += [prompt for prompt in own if prompt.name not in {*short, *long}]

    try:
        output.mkdir(parents=True, exist_ok=True)
        for prompt in tqdm(kept, desc="decoding prompts", unit="file", mininterval=2):
            target = output / _audio_path(prompt)
            if _n_samples_of_flac(target) != n_samples[prompt.audio]:
                _write_flac(target, decode(prompt.audio))
    except (OSError, soundfile.SoundFileError) as error:
        raise InputError(
            f"{output}: cannot write the corpus there ({error}), expected a folder"
        ) from error

    spoken = {(prompt.lang, prompt.name): prompt.text for prompt in prompts}
    manifests: dict[str, list[ManifestRow]] = {
        f"{split}_{task}": [] for split in SPLITS for task in TASKS
    }
    for prompt in kept:
        other: Language = "it" if prompt.lang == "en" else "en"
        targets: dict[str, Language] = {f"asr_{prompt.lang}": prompt.lang}
        if prompt.translatable:
            targets[f"st_{prompt.lang}_{other}"] = other
        for task, tgt_lang in targets.items():
            manifests[f"{split_of(prompt.name)}_{task}"].append(
                ManifestRow(
                    id=f"{task.replace('_', '-')}/{prompt.name}",
                    audio=_audio_path(prompt),
                    n_frames=1 + (n_samples[prompt.audio] - FRAME_LENGTH) // FRAME_SHIFT,
                    speaker=prompt.speaker,
                    src_lang=prompt.lang,
                    src_text=prompt.text,
                    tgt_lang=tgt_lang,
                    tgt_text=spoken[tgt_lang, prompt.name],
                )
            )
    for name, rows in manifests.items():
        write_manifest(output / f"{name}.tsv", rows)
    return {name: len(rows) for name, rows in manifests.items()}


def _locate(audio_dir: Path) -> tuple[dict[Language, Path], dict[Language, Path]]:
    text_names = {
        lang: (f"core-sounds-{lang}.txt", f"core-sounds-{lang}.txt.gz") for lang in VOICES
    }
    wanted = {voice for _, voice in VOICES.values()} | {
        n for two in text_names.values() for n in two
    }
    found: dict[str, Path] = {}
    for parent, subfolders, files in os.walk(audio_dir):
        subfolders.sort()
        for name in wanted.intersection((Path(parent).name,)):
            found.setdefault(name, Path(parent))
        for name in wanted.intersection(files):
            found.setdefault(name, Path(parent, name))
    folders: dict[Language, Path] = {}
    text_files: dict[Language, Path] = {}
    for lang, (_, voice) in VOICES.items():
        if voice not in found:
            raise InputError(
                f"{audio_dir}: has no folder {voice}, expected that of the Debian package "
                f"asterisk-core-sounds-{lang}-g722"
            )
        text_file = next((found[name] for name in text_names[lang] if name in found), None)
        if text_file is None:
            raise InputError(
                f"{audio_dir}: has no file {' or '.join(text_names[lang])}, expected that of the "
                f"Debian package asterisk-core-sounds-{lang}"
            )
        folders[lang], text_files[lang] = found[voice], text_file
    return folders, text_files


def _recordings(folder: Path) -> dict[str, Path]:
    paths = {
        path.relative_to(folder).with_suffix("").as_posix(): path for path in folder.rglob("*.g722")
    }
    if not paths:
        lang = folder.name.partition("_")[0]
        raise InputError(
            f"{folder}: has no .g722 file, expected those of the Debian package "
            f"asterisk-core-sounds-{lang}-g722"
        )
    return paths


def _read_texts(path: Path, lang: Language) -> dict[str, PromptText]:
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
        texts = parse_texts(content.decode("utf-8"), lang)
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise InputError(
            f"{path}: unreadable ({error}), expected the UTF-8 text of the Debian package "
            f"asterisk-core-sounds-{lang}"
        ) from error
    if not texts:
        raise InputError(f"{path}: has no prompt, expected lines of the form 'name: text'")
    return texts


def _log_left_out(names: list[str], where: str, why: str) -> None:
    if names:
        logger.warning("%s: left out %d prompts, %s: %s", where, len(names), why, ", ".join(names))


def _check_splits(prompts: Iterable[Prompt]) -> None:
    first: dict[tuple[Language, str], str] = {}
    for prompt in prompts:
        name = first.setdefault((prompt.lang, prompt.text), prompt.name)
        if split_of(name) != split_of(prompt.name):
            raise InputError(
                f"prompts {name!r} ({split_of(name)}) and {prompt.name!r} "
                f"({split_of(prompt.name)}) both say {prompt.text!r} in {prompt.lang!r}, expected "
                "one sentence to be in one split"
            )


def _n_samples(path: Path) -> int:
    try:
        size = path.stat().st_size
    except OSError as error:
        raise InputError(f"{path}: unreadable ({error}), expected a G.722 recording") from error
    if size == 0:
        raise InputError(f"{path}: empty, expected a G.722 recording")
    return size * SAMPLES_PER_BYTE


def _decoder() -> Callable[[Path], npt.NDArray[np.int16]]:
    try:
        from G722 import G722
    except ImportError as error:
        raise InputError(
            'decoding G.722 needs the package G722: pip install "fbk_xattn[prompts]"'
        ) from error

    def decode(path: Path) -> npt.NDArray[np.int16]:
        try:
            coded = path.read_bytes()
        except OSError as error:
            raise InputError(f"{path}: unreadable ({error}), expected a G.722 recording") from error
        # The codec adapts as it goes: a fresh one for every file.
        return np.asarray(G722(SAMPLE_RATE, 64_000).decode(coded), dtype=np.int16)

    return decode


def _audio_path(prompt: Prompt) -> str:
    return f"audio/{prompt.speaker}/{prompt.name}.flac"


def _n_samples_of_flac(path: Path) -> int | None:
    if not path.is_file():
        return None
    try:
        return int(soundfile.info(path).frames)
    except soundfile.LibsndfileError:
        return None


def _write_flac(path: Path, samples: npt.NDArray[np.int16]) -> None:
    with whole_file(path) as temporary:
        soundfile.write(temporary, samples, SAMPLE_RATE, subtype="PCM_16", format="FLAC")
