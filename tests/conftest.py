"""Speech-like data and a small model, made once for all tests that run fairseq."""

from __future__ import annotations

import os

import numpy as np
import pytest
import soundfile
import torch
from fairseq_runs import run_train
from speech import chirps

from fbk_xattn.data.manifest import ManifestRow, write_manifest

# Triton reads it when it is imported: without a GPU its interpreter runs the kernels.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"
# Tiny models gain nothing from threads, and sums are rounded alike in the processes of some tests.
torch.set_num_threads(1)
TEXTS = {
    "en": [
        "please hold the line",
        "thank you",
        "your call is important",
        "press one now",
        "goodbye",
    ],
    "it": ["prego attendere in linea", "grazie", "la chiamata è importante", "premi uno", "ciao"],
}


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    """A corpus folder: FLAC files with manifests ``train``, ``dev`` and ``test``."""
    folder = tmp_path_factory.mktemp("corpus")
    rng = np.random.default_rng(1)
    for split, n_utterances in (("train", 10), ("dev", 2), ("test", 5)):
        rows = []
        for number in range(n_utterances):
            source, target = ("en", "it") if number % 2 else ("it", "en")
            target = source if number % 3 == 0 else target
            name = f"{split}-{number}.flac"
            samples = chirps(rng, rng.uniform(0.5, 1.6))
            soundfile.write(folder / name, samples, 16_000)
            text = number % len(TEXTS["en"])
            rows.append(
                ManifestRow(
                    id=f"{split}/{number}",
                    audio=name,
                    n_frames=1 + (len(samples) - 400) // 160,
                    speaker="chirp",
                    src_lang=source,
                    src_text=TEXTS[source][text],
                    tgt_lang=target,
                    tgt_text=TEXTS[target][text],
                )
            )
        write_manifest(folder / f"{split}.tsv", rows)
    return folder


@pytest.fixture(scope="session")
def data(corpus, tmp_path_factory):
    """The data folder that ``fbk-xattn prepare`` makes of the corpus."""
    from fbk_xattn.data.prepare import prepare

    folder = tmp_path_factory.mktemp("data")
    prepare(corpus, folder, vocabulary=60)
    return folder


@pytest.fixture(scope="session")
def checkpoint(data, tmp_path_factory):
    """A checkpoint of ``fairseq-train`` after a few updates."""
    folder = tmp_path_factory.mktemp("checkpoints")
    run_train(data, folder)
    return folder / "checkpoint_last.pt"


@pytest.fixture
def rng():
    """A random generator, the same for every test."""
    return np.random.default_rng(20250922)
