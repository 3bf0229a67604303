"""From manifests of audio files to a data folder that fairseq trains on."""

from __future__ import annotations

import dataclasses
import logging
import multiprocessing
import re
import struct
import tempfile
import zipfile
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import numpy as np
import yaml
from numpy.typing import NDArray
from tqdm import tqdm

from fbk_xattn.data.features import N_BINS, check_length, fbank_backend, load_features
from fbk_xattn.data.manifest import ManifestRow, read_manifest, write_manifest
from fbk_xattn.data.vocabulary import (
    VOCABULARY_FILES,
    check_tags,
    check_vocabulary,
    train_vocabulary,
)
from fbk_xattn.errors import InputError
from fbk_xattn.files import whole_file, write_text

logger = logging.getLogger(__name__)

ARCHIVE = f"fbank{N_BINS}.zip"
CONFIG = "config.yaml"
FILES_A_TURN = 16  # that a process computes before it hands them over
Manifests = Mapping[str, Sequence[ManifestRow]]
LOCAL_HEADER = struct.Struct("<26xHH")  # of a zip entry: ends with lengths of name and extra field


def prepare(corpus: Path, output: Path, vocabulary: int | Path, workers: int = 1) -> None:
    """Compute features, train a vocabulary and write manifests and ``config.yaml``.

    Args:
        corpus: Folder with manifests (``*.tsv``) whose audio paths count from it. Manifests named
            ``train*`` give the vocabulary.
        output: Data folder to create, or to write anew. ``config.yaml`` is written last, so it is
            there only when all is.
        vocabulary: Wanted number of SentencePiece symbols; or the folder of a vocabulary that is
            there already, with ``spm.model`` and ``dict.txt``, as for data of a trained model.
        workers: Processes that compute features; the archive does not depend on them.

    Raises:
        InputError: No manifest, none for training where a vocabulary is wanted, no vocabulary in
            its folder or one without a tag for a target language, an utterance that cannot be
            read, or ``output`` cannot be made, is ``corpus`` or has manifests of further splits,
            whose archive would be replaced. Unless writing fails, all stays as it was.
    """
    manifests = {path.stem: read_manifest(path) for path in sorted(corpus.glob("*.tsv"))}
    if not any(manifests.values()):
        raise InputError(f"{corpus}: no *.tsv with utterances, expected manifests of a corpus")
    _check_languages(manifests)
    written = [output / f"{name}.tsv" for name in manifests]
    _check_output(corpus, output, written)
    # The vocabulary comes first, as it can fail within seconds; beside what is there already.
    with tempfile.TemporaryDirectory() as trained:
        if isinstance(vocabulary, Path):
            check_vocabulary(vocabulary)
            targets = {row.tgt_lang for rows in manifests.values() for row in rows}
            check_tags(vocabulary / "dict.txt", targets)
            folder = vocabulary
        else:
            folder = Path(trained)
            _train_vocabulary(corpus, manifests, vocabulary, folder)
        _make_folder(output)
        audio = {r.audio: r.n_frames for m in manifests.values() for r in m}
        locations = write_features(corpus, audio, output, workers, [output / CONFIG, *written])
        for path, rows in zip(written, manifests.values(), strict=True):
            write_manifest(path, [_with_features(row, locations) for row in rows])
        for name in VOCABULARY_FILES:
            with whole_file(output / name) as temporary:
                temporary.write_bytes((folder / name).read_bytes())
    write_config(output / CONFIG)


def _check_languages(manifests: Manifests) -> None:
    """Check that every language can have a tag.

    Raises:
        InputError: One is empty or has a space.
    """
    for name, rows in manifests.items():
        for row in rows:
            for column in ("src_lang", "tgt_lang"):
                language = getattr(row, column)
                if language.split() != [language]:
                    raise InputError(
                        f"{name}.tsv, utterance {row.id!r}: {column} is {language!r}, expected "
                        "the code of a language, for example en"
                    )


def _train_vocabulary(corpus: Path, manifests: Manifests, size: int, folder: Path) -> None:
    training = [row for name, rows in manifests.items() if name.startswith("train") for row in rows]
    if not training:
        raise InputError(f"{corpus}: no train*.tsv with utterances, expected manifests of a corpus")
    n_symbols = train_vocabulary(
        [text for row in training for text in (row.src_text, row.tgt_text)],
        sorted({lang for m in manifests.values() for r in m for lang in (r.src_lang, r.tgt_lang)}),
        size,
        folder / "spm.model",
        folder / "dict.txt",
    )
    logger.info("vocabulary of %d symbols, %d training utterances", n_symbols, len(training))


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be made ({error.strerror or error}), expected the name of a folder"
        ) from None


def _check_output(corpus: Path, output: Path, written: list[Path]) -> None:
    """Check that no manifest would lose what it points at.

    Raises:
        InputError: ``output`` is ``corpus``, or a manifest in it that is not to be written points
            into the archive that is.
    """
    if output.resolve() == corpus.resolve():
        raise InputError(
            f"{output}: is CORPUS too, whose manifests would be replaced, expected another folder"
        )
    others = [path for path in sorted(output.glob("*.tsv")) if path not in written]
    left_behind = [path.name for path in others if _points_into(output / ARCHIVE, path)]
    if left_behind:
        raise InputError(
            f"{output / ARCHIVE} would be replaced, and with it the features of "
            f"{', '.join(left_behind)}; expected such manifests in {corpus} too (one run prepares "
            "all splits), or another folder"
        )


def _points_into(archive: Path, manifest: Path) -> bool:
    """Tell whether a file that may be a manifest has a cell ``archive:offset:length``."""
    cells = re.split(r"[\t\r\n]", manifest.read_text(encoding="utf-8", errors="replace"))
    files = {cell.rpartition(f"{ARCHIVE}:")[0] for cell in cells if f"{ARCHIVE}:" in cell}
    return any((archive.parent / file / ARCHIVE).resolve() == archive.resolve() for file in files)


def write_features(
    corpus: Path,
    audio: Mapping[str, int],
    output: Path,
    workers: int = 1,
    outdated: Sequence[Path] = (),
) -> dict[str, tuple[str, int]]:
    """Write the features of audio files to one uncompressed zip archive.

    Args:
        corpus: Folder that the audio paths count from.
        audio: Audio files, each with ``n_frames`` of its manifest; the archive has them sorted.
        output: Folder of the archive.
        workers: Processes that compute features.
        outdated: Files that fit an archive of before alone; they go once all features are there.

    Returns:
        For each audio file its location (``fbank80.zip:offset:length``) and number of frames.

    Raises:
        InputError: A file cannot be read; nothing is left behind.
    """
    archive = output / ARCHIVE
    frames = {}
    with whole_file(archive) as temporary:
        with (
            zipfile.ZipFile(temporary, "w") as writer,
            _computed(corpus, sorted(audio), workers) as computed,
        ):
            progress = tqdm(computed, "features", len(audio), unit="file", mininterval=2.0)
            for path, features in zip(sorted(audio), progress, strict=True):
                try:
                    check_length(corpus / path, len(features), audio[path])
                except InputError as error:  # cut short, or n_frames of the corpus is no such count
                    logger.warning("%s; the data folder has the number of its features", error)
                frames[path] = len(features)
                with writer.open(zipfile.ZipInfo(f"{path}.npy"), "w") as entry:
                    np.save(entry, features)
        # Before the archive is replaced: a run that is killed leaves no manifest of another one.
        for old in outdated:
            old.unlink(missing_ok=True)
    locations = {}
    with zipfile.ZipFile(archive) as reader, archive.open("rb") as file:
        for path in audio:
            info = reader.getinfo(f"{path}.npy")
            file.seek(info.header_offset)
            name_length, extra_length = LOCAL_HEADER.unpack(file.read(LOCAL_HEADER.size))
            offset = info.header_offset + LOCAL_HEADER.size + name_length + extra_length
            locations[path] = (f"{ARCHIVE}:{offset}:{info.file_size}", frames[path])
    return locations


@contextmanager
def _computed(
    corpus: Path, audio: list[str], workers: int
) -> Iterator[Iterator[NDArray[np.float32]]]:
    """Yield the features of audio files in their order, computed by so many processes.

    Raises:
        InputError: A process died.
    """
    if workers == 1:
        yield (load_features(corpus / path) for path in audio)
        return
    fbank_backend()  # here and not in each process, which would log its choice again
    fork = multiprocessing.get_context("fork")
    pool = ProcessPoolExecutor(workers, fork, _use_one_thread)
    try:
        yield _in_turns(pool, [corpus / path for path in audio], 2 * workers)
    except BrokenProcessPool:
        raise InputError(
            "a process that computes features died (of too little memory, if nobody ended it), "
            f"expected fewer --workers than {workers}"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _in_turns(
    pool: ProcessPoolExecutor, paths: list[Path], ahead: int
) -> Iterator[NDArray[np.float32]]:
    """Yield the features of files in order; ``ahead`` turns are computed before they are due."""
    turns = (paths[i : i + FILES_A_TURN] for i in range(0, len(paths), FILES_A_TURN))
    waiting = deque(pool.submit(_load, turn) for turn in islice(turns, ahead))
    while waiting:
        loaded = waiting.popleft().result()
        waiting.extend(pool.submit(_load, turn) for turn in islice(turns, 1))
        yield from loaded


def _load(paths: list[Path]) -> list[NDArray[np.float32]]:
    return [load_features(path) for path in paths]


def _use_one_thread() -> None:
    import torch

    torch.set_num_threads(1)


def _with_features(row: ManifestRow, locations: dict[str, tuple[str, int]]) -> ManifestRow:
    location, frames = locations[row.audio]
    return dataclasses.replace(row, audio=location, n_frames=frames)


def write_config(path: Path) -> None:
    """Write the data config: utterance CMVN, SpecAugment in training, language tags.

    SpecAugment is the paper's: 2 frequency masks of up to 27 bins, 2 time masks of up to 100
    frames, and at most a fifth of the frames.
    """
    subwords = {"bpe": "sentencepiece", "sentencepiece_model": "spm.model"}
    config = {
        "vocab_filename": "dict.txt",
        "vocab_filename_src": "dict.txt",
        "bpe_tokenizer": subwords,
        "bpe_tokenizer_src": dict(subwords),
        "audio_root": ".",
        "input_channels": 1,
        "input_feat_per_channel": N_BINS,
        "prepend_tgt_lang_tag": True,
        "shuffle": True,
        "specaugment": {
            "freq_mask_F": 27,
            "freq_mask_N": 2,
            "time_mask_N": 2,
            "time_mask_T": 100,
            "time_mask_p": 0.2,
            "time_warp_W": 0,
        },
        "feature_transforms": {
            "*": ["utterance_cmvn"],
            "_train": ["utterance_cmvn", "specaugment"],
        },
    }
    write_text(path, yaml.safe_dump(config, sort_keys=False))
