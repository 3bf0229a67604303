"""Builds the training corpus of the larger model: real, spliced, telephone and general speech.

    python -m examples.prompts.train.build SPEECH CORPUS [--parts PART ...] [--workers N]

SPEECH holds ``manifest.tsv`` (columns ``id``, ``audio``, ``corpus``, ``speaker``, ``split``,
``src_lang``, ``src_text``, ``tgt_lang``, ``tgt_text``) with its audio, and sentence pairs
``*_en_it.tsv``, for spliced speech ``parts.tsv`` too (``alignment.py`` makes it with a model that
is trained on the rest). CORPUS gets audio files and manifests for ``fbk-xattn prepare``.
"""

from __future__ import annotations

import argparse
import logging
import math
import multiprocessing
import os
import random
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray
from tqdm import tqdm

from examples.prompts.train.augmentation import FULL_SCALE, augmented
from examples.prompts.train.fragments import joined
from examples.prompts.train.phrases import Pair
from examples.prompts.train.recordings import Join, Read, read_speech_manifest
from examples.prompts.train.splicing import RecordedPart, Splice, read_parts, sentences_of
from examples.prompts.train.synthesis import VOICES, Spoken, speak
from examples.prompts.train.texts import HeldOut, known_words, read_held_out, texts_of
from fbk_xattn.data.features import SAMPLE_RATE, n_frames
from fbk_xattn.data.manifest import ManifestRow, write_manifest
from fbk_xattn.data.prompts_texts import Language, clean_text
from fbk_xattn.data.vocabulary import train_vocabulary
from fbk_xattn.errors import InputError

logger = logging.getLogger("build")

PARTS = ("real", "telephone", "general", "spliced")
LANGUAGES: tuple[Language, Language] = ("en", "it")
MAX_SECONDS = 20.0
MIN_SECONDS = 0.3
# Changed copies of a real recording, and of joined ones: the fewer minutes, the more of them.
COPIES = {"en_allison": 12, "it_carlo": 15, "it_menardi": 15, "bass": 3, "kathleen": 3}
OTHER_COPIES = 3  # of other speakers' recordings
JOINED = {"en_allison": 1500, "it_carlo": 2000, "it_menardi": 2000}
PAUSES = (0.05, 0.5)  # seconds between joined recordings
SPLICED = {"en_allison": 8000, "it_carlo": 8000, "it_menardi": 8000, "bass": 4000, "kathleen": 4000}
STRETCH, PITCH = (0.8, 1.2), (0.8, 1.25)
CHUNK = 64  # sentences that one call of an engine speaks
# Spliced sentences of a job, which reads a recording once for all of them and keeps the parts.
SPLICED_CHUNK = 1000

Samples = NDArray[np.float32]
Made = list[tuple[str, int]]  # name below CORPUS/audio, frames (0: left out)


@dataclass(frozen=True)
class Recording:
    """A real utterance of the corpus that is trained on."""

    id: str
    file: Path
    speaker: str
    lang: Language
    text: str
    translation: str


@dataclass(frozen=True)
class Job:
    """Some audio to make in a process of its own.

    Attributes:
        make: Returns the samples of each name.
        names: Of the audio files, below ``CORPUS/audio``.
        changed: Whether copies are changed at random.
    """

    make: Callable[[], Iterable[Samples]]
    names: list[str]
    changed: bool = True


@dataclass(frozen=True)
class Speak:
    """Sentences that one engine speaks."""

    sentences: tuple[Spoken, ...]

    def __call__(self) -> list[Samples]:
        """Synthesise them."""
        return speak(self.sentences)


def run_job(job: tuple[Job, Path, int]) -> Made:
    """Make the audio of a job; names with 0 frames are left out."""
    job_, folder, seed = job
    made: Made = []
    for name, samples in zip(job_.names, job_.make(), strict=True):
        if job_.changed and len(samples):
            samples = augmented(samples, np.random.default_rng([seed, zlib.crc32(name.encode())]))
        seconds = len(samples) / SAMPLE_RATE
        if job_.changed and not MIN_SECONDS <= seconds <= MAX_SECONDS:
            made.append((name, 0))
            continue
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pcm = np.clip(np.rint(samples), -FULL_SCALE, FULL_SCALE - 1).astype(np.int16)
        soundfile.write(path, pcm, SAMPLE_RATE, subtype="PCM_16")
        made.append((name, n_frames(len(samples))))
    return made


class Corpus:
    """Manifests and audio of a corpus in the making.

    Args:
        output: Its folder.
        workers: Processes.
        seed: Of all random choices.
    """

    def __init__(self, output: Path, workers: int, seed: int) -> None:
        """See the class."""
        self.output, self.workers, self.seed = output, workers, seed
        self._jobs: list[Job] = []
        self._names: set[str] = set()
        self._rows: dict[str, list[ManifestRow]] = defaultdict(list)

    def add(self, job: Job) -> None:
        """Add audio to make.

        Raises:
            InputError: Two files of one name: one utterance's audio would become the other's.
        """
        for name in job.names:
            if name in self._names:
                raise InputError(f"audio/{name}: made of two utterances, expected other ids")
            self._names.add(name)
        self._jobs.append(job)

    def add_row(
        self, part: str, key: str, name: str, lang: Language, texts: Pair, who: str
    ) -> None:
        """Add an utterance: to speech translation where it has a translation, else to recognition.

        Args:
            part: Start of the manifest's name, for example ``train_real``.
            key: Id.
            name: Of its audio.
            lang: Language spoken.
            texts: Transcript and translation (or an empty string).
            who: Speaker.
        """
        other = LANGUAGES[1 - LANGUAGES.index(lang)]
        text, translation = texts
        task, target = (f"st_{lang}_{other}", other) if translation else (f"asr_{lang}", lang)
        self._rows[f"{part}_{task}"].append(
            ManifestRow(key, name, 1, who, lang, text, target, translation or text)
        )

    def train_vocabulary(self, size: int) -> None:
        """Train ``CORPUS/vocabulary`` on the different training texts, unless it is there."""
        folder = self.output / "vocabulary"
        if (folder / "dict.txt").is_file():
            return
        texts = {
            text
            for name, rows in self._rows.items()
            if name.startswith("train")
            for row in rows
            for text in (row.src_text, row.tgt_text)
        }
        folder.mkdir(parents=True, exist_ok=True)
        model, dictionary = folder / "spm.model", folder / "dict.txt"
        n_symbols = train_vocabulary(sorted(texts), list(LANGUAGES), size, model, dictionary)
        logger.info("vocabulary of %d symbols of %d texts", n_symbols, len(texts))

    def write(self) -> None:
        """Make the audio, then write the manifests; utterances of a bad length are counted."""
        frames: dict[str, int] = {}
        folder = self.output / "audio"
        jobs = [(job, folder, self.seed) for job in self._jobs]
        random.Random(self.seed).shuffle(jobs)
        with multiprocessing.get_context("fork").Pool(self.workers) as pool:
            for made in tqdm(pool.imap_unordered(run_job, jobs), total=len(jobs), mininterval=5):
                frames.update(made)
        for name, rows in sorted(self._rows.items()):
            kept = [
                ManifestRow(**{**vars(row), "audio": f"audio/{row.audio}", "n_frames": n})
                for row in rows
                if (n := frames[row.audio])
            ]
            hours = sum(row.n_frames for row in kept) / 360_000
            logger.info("%-32s %6d utterances %6.2f h", name, len(kept), hours)
            if len(kept) < len(rows):
                logger.info(
                    "%-32s %6d left out, not spoken, shorter than %g s or longer than %g s",
                    *("", len(rows) - len(kept), MIN_SECONDS, MAX_SECONDS),
                )
            if kept:
                write_manifest(self.output / f"{name}.tsv", kept)
            else:  # of an earlier run, whose audio is not there any more
                (self.output / f"{name}.tsv").unlink(missing_ok=True)
                logger.info("%-32s no manifest, as no utterance is left", "")


def real_speech(
    corpus: Corpus, speech: Path, rows: Sequence[dict[str, str]], copies: float
) -> None:
    """Add the recordings: held-out ones as they are, others in changed and in joined copies."""
    recordings: dict[tuple[str, Language], list[Recording]] = defaultdict(list)
    for row in rows:
        lang: Language = "en" if row["src_lang"] == "en" else "it"
        other = LANGUAGES[1 - LANGUAGES.index(lang)]
        recording = Recording(
            row["id"],
            speech / row["audio"],
            row["speaker"],
            lang,
            clean_text(row["src_text"], lang),
            clean_text(row["tgt_text"], other) if row["tgt_text"] else "",
        )
        if row["split"] == "train":
            recordings[recording.speaker, lang].append(recording)
        else:
            _add_held_out(corpus, recording, row["split"], row["corpus"] == "prompts")
    for (speaker, _), own in sorted(recordings.items()):
        for recording in own:
            names = [
                f"real/{recording.id}.{number}.wav"
                for number in range(max(1, round(copies * COPIES.get(speaker, OTHER_COPIES))))
            ]
            corpus.add(Job(Read(recording.file, len(names)), names))
            texts = recording.text, recording.translation
            for name in names:
                corpus.add_row("train_real", name, name, recording.lang, texts, speaker)
        _add_joined(corpus, speaker, own, round(copies * JOINED.get(speaker, 0)))


def _add_held_out(corpus: Corpus, recording: Recording, split: str, prompt: bool) -> None:
    name = f"real/{recording.id}.wav"
    corpus.add(Job(Read(recording.file, 1), [name], changed=False))
    tasks = {f"asr_{recording.lang}": ""}
    if recording.translation:
        other = LANGUAGES[1 - LANGUAGES.index(recording.lang)]
        tasks[f"st_{recording.lang}_{other}"] = recording.translation
    for task, translation in tasks.items():
        part = split if prompt else f"{split}_other"
        key = f"{task.replace('_', '-')}/{recording.id}"
        texts = recording.text, translation
        corpus.add_row(part, key, name, recording.lang, texts, recording.speaker)


def _add_joined(corpus: Corpus, speaker: str, own: Sequence[Recording], times: int) -> None:
    generator = random.Random(f"{corpus.seed} {speaker}")
    for number in range(times):
        translated = generator.random() < 0.8
        some = [recording for recording in own if recording.translation or not translated]
        if len(some) < 2:
            continue
        chosen = generator.sample(some, min(generator.choice((2, 2, 3)), len(some)))
        pauses = tuple(generator.uniform(*PAUSES) for _ in chosen[1:])
        name = f"joined/{speaker}-{chosen[0].lang}/{number}.wav"
        corpus.add(Job(Join(tuple(r.file for r in chosen), pauses), [name]))
        complete = all(recording.translation for recording in chosen)
        texts = (
            " ".join(recording.text for recording in chosen),
            " ".join(recording.translation for recording in chosen) if complete else "",
        )
        corpus.add_row("train_real", name, name, chosen[0].lang, texts, speaker)


def spliced_speech(
    corpus: Corpus, speech: Path, rows: Sequence[dict[str, str]], copies: float, held_out: HeldOut
) -> None:
    """Add sentences spliced of parts of one speaker's training recordings.

    Nothing but the sound says which words follow each other.
    """
    recorded: dict[tuple[str, Language], list[RecordedPart]] = defaultdict(list)
    for part in read_parts(speech, rows):
        lang: Language = "en" if part.row["src_lang"] == "en" else "it"
        recorded[part.row["speaker"], lang].append(part)
    known = known_words(speech, rows)
    n_close = 0
    for (speaker, lang), own in sorted(recorded.items()):
        generator = random.Random(f"{corpus.seed} {speaker} spliced")
        times = round(copies * SPLICED.get(speaker, 0))
        made = []
        for number, chosen in enumerate(sentences_of(own, times, generator, known[lang])):
            text = joined([part.text for part in chosen])
            if held_out.close_to(text, lang):
                n_close += 1
                continue
            name = f"spliced/{speaker}-{lang}/{number}.wav"
            made.append((name, tuple(part.piece(speech) for part in chosen)))
            corpus.add_row("train_spliced", name, name, lang, (text, ""), speaker)
        for start in range(0, len(made), SPLICED_CHUNK):
            names, sentences = zip(*made[start : start + SPLICED_CHUNK], strict=True)
            corpus.add(Job(Splice(sentences), list(names)))
    logger.info("spliced: %d sentences left out, close to held-out ones", n_close)


def synthetic_speech(corpus: Corpus, part: str, pairs: Sequence[Pair]) -> None:
    """Add sentence pairs, spoken in both languages by voices drawn at random."""
    generator = random.Random(f"{corpus.seed} {part}")
    queues: dict[str, list[tuple[Spoken, str]]] = defaultdict(list)
    for number, pair in enumerate(pairs):
        for index, lang in enumerate(LANGUAGES):
            engine, voice = generator.choices(list(VOICES[lang]), list(VOICES[lang].values()))[0]
            stretch, pitch = generator.uniform(*STRETCH), generator.uniform(*PITCH)
            name = f"{part}/{lang}/{number}.wav"
            queues[engine].append((Spoken(pair[index], engine, voice, stretch, pitch), name))
            texts = pair[index], pair[1 - index]
            corpus.add_row(f"train_{part}", name, name, lang, texts, f"{engine}-{voice}")
    for queue in queues.values():
        for start in range(0, len(queue), CHUNK):
            sentences, names = zip(*queue[start : start + CHUNK], strict=True)
            corpus.add(Job(Speak(sentences), list(names)))


def at_least(kind: Callable[[str], float], minimum: float) -> Callable[[str], float]:
    """Return what reads a flag's finite number from ``minimum`` on."""

    def read(value: str) -> float:
        try:
            found = kind(value)
        except ValueError:
            found = math.nan
        if not minimum <= found < math.inf:
            raise argparse.ArgumentTypeError(f"{value!r}, expected a number from {minimum:g}")
        return found

    return read


def main(arguments: Sequence[str] | None = None) -> None:
    """Build the corpus."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("speech", type=Path, metavar="SPEECH", help="corpora, see above")
    parser.add_argument("corpus", type=Path, metavar="CORPUS", help="folder to write")
    parser.add_argument(
        "--parts", nargs="+", choices=PARTS, default=PARTS[:-1], help="default: all but spliced"
    )
    parser.add_argument(
        "--copies", type=at_least(float, 0), default=1.0, metavar="X", help="times as many copies"
    )
    parser.add_argument(
        "--telephone", type=at_least(int, 0), default=12_000, metavar="N", help="sentences"
    )
    parser.add_argument(
        "--max-words", type=at_least(int, 1), default=12, metavar="N", help="of general ones"
    )
    parser.add_argument(
        "--general", type=at_least(int, 0), metavar="N", help="at most so many of them"
    )
    parser.add_argument("--vocabulary-size", type=at_least(int, 1), default=1000, metavar="N")
    parser.add_argument(
        "--workers", type=at_least(int, 1), default=os.cpu_count() or 1, metavar="N"
    )
    parser.add_argument("--seed", type=at_least(int, 0), default=1)
    args = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        rows = read_speech_manifest(args.speech, audio=bool({"real", "spliced"} & {*args.parts}))
        held_out = read_held_out(rows)
        try:
            args.corpus.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{args.corpus}: {error.strerror}, expected a folder") from None
        corpus = Corpus(args.corpus, args.workers, args.seed)
        for part in dict.fromkeys(args.parts):
            if part == "real":
                real_speech(corpus, args.speech, rows, args.copies)
                continue
            if part == "spliced":
                spliced_speech(corpus, args.speech, rows, args.copies, held_out)
                continue
            pairs = texts_of(part, args.speech, held_out, args.telephone, args.max_words, args.seed)
            if part == "general" and args.general is not None:
                pairs = random.Random(args.seed).sample(pairs, min(args.general, len(pairs)))
            synthetic_speech(corpus, part, pairs)
        corpus.train_vocabulary(args.vocabulary_size)
        corpus.write()
    except InputError as error:
        raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
    main()
