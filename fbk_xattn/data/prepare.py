"""From manifests of audio files to a data folder that fairseq trains on."""

from __future__ import annotations

import dataclasses
import logging
import struct
import zipfile
from pathlib import Path

import numpy as np
import yaml
from tqdm import tqdm

from fbk_xattn.data.features import N_BINS, load_features
from fbk_xattn.data.manifest import ManifestRow, read_manifest, write_manifest
from fbk_xattn.data.vocabulary import train_vocabulary
from fbk_xattn.errors import InputError
from fbk_xattn.files import whole_file, write_text

logger = logging.getLogger(__name__)

ARCHIVE = f"fbank{N_BINS}.zip"
LOCAL_HEADER = struct.Struct("<26xHH")  # of a zip entry: ends with lengths of name and extra field


def prepare(corpus: Path, output: Path, vocabulary_size: int) -> None:
    """Compute features, train a vocabulary and write manifests and ``config.yaml``.

    Args:
        corpus: Folder with manifests (``*.tsv``) whose audio paths count from it. Manifests named
            ``train*`` give the vocabulary.
        output: Data folder to create. ``config.yaml`` is written last, so it is there only when
            all is.
        vocabulary_size: Wanted number of SentencePiece symbols.

    Raises:
        InputError: No training manifest, or an utterance that cannot be read.
    """
    manifests = {path.stem: read_manifest(path) for path in sorted(corpus.glob("*.tsv"))}
    training = [row for name, rows in manifests.items() if name.startswith("train") for row in rows]
    if not training:
        raise InputError(f"{corpus}: no train*.tsv with utterances, expected manifests of a corpus")
    output.mkdir(parents=True, exist_ok=True)
    locations = write_features(
        corpus, sorted({r.audio for m in manifests.values() for r in m}), output
    )
    for name, rows in manifests.items():
        write_manifest(output / f"{name}.tsv", [_with_features(row, locations) for row in rows])
    size = train_vocabulary(
        [text for row in training for text in (row.src_text, row.tgt_text)],
        sorted(
            {lang for rows in manifests.values() for r in rows for lang in (r.src_lang, r.tgt_lang)}
        ),
        vocabulary_size,
        output / "spm.model",
        output / "dict.txt",
    )
    logger.info("vocabulary of %d symbols, %d training utterances", size, len(training))
    write_config(output / "config.yaml")


def write_features(corpus: Path, audio: list[str], output: Path) -> dict[str, tuple[str, int]]:
    """Write the features of audio files to one uncompressed zip archive.

    Returns:
        For each audio file its location (``fbank80.zip:offset:length``) and number of frames.

    Raises:
        InputError: A file cannot be read; nothing is left behind.
    """
    archive = output / ARCHIVE
    frames = {}
    with whole_file(archive) as temporary, zipfile.ZipFile(temporary, "w") as writer:
        for path in tqdm(audio, desc="features", unit="file", mininterval=2.0):
            features = load_features(corpus / path)
            frames[path] = len(features)
            with writer.open(zipfile.ZipInfo(f"{path}.npy"), "w") as entry:
                np.save(entry, features)
    locations = {}
    with zipfile.ZipFile(archive) as reader, archive.open("rb") as file:
        for path in audio:
            info = reader.getinfo(f"{path}.npy")
            file.seek(info.header_offset)
            name_length, extra_length = LOCAL_HEADER.unpack(file.read(LOCAL_HEADER.size))
            offset = info.header_offset + LOCAL_HEADER.size + name_length + extra_length
            locations[path] = (f"{ARCHIVE}:{offset}:{info.file_size}", frames[path])
    return locations


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
