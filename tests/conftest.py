"""Speech-like data and a small model, made once for all tests that run fairseq."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from fbk_xattn.data.manifest import ManifestRow, write_manifest

ROOT = Path(__file__).parents[1]
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


def chirps(rng, seconds):
    """Return audio with the pitch glides and bursts of speech, ``(n_samples,)`` in -1 to 1."""
    time = np.arange(int(seconds * 16_000)) / 16_000
    pitch = 120 + 60 * np.sin(2 * np.pi * rng.uniform(0.5, 2) * time)
    phase = 2 * np.pi * np.cumsum(pitch) / 16_000
    voice = sum(np.sin(k * phase) / k for k in range(1, 12))
    envelope = np.abs(np.sin(2 * np.pi * rng.uniform(1, 4) * time + rng.uniform(0, 6)))
    return 0.1 * envelope * voice + 0.003 * rng.standard_normal(len(time))


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
    prepare(corpus, folder, vocabulary_size=60)
    return folder


MODEL_FLAGS = (
    "--arch conformer_joint_ctc --encoder-layers 3 --decoder-layers 2 --ctc-encoder-layer 2 "
    "--encoder-embed-dim 32 --decoder-ffn-embed-dim 64 --encoder-attention-heads 4 "
    "--decoder-attention-heads 4 --conv-channels 32 --conformer-conv-kernel-size 7 "
    "--no-syncbatchnorm"
).split()
CRITERION_FLAGS = (
    "--criterion ctc_multi_loss --underlying-criterion joint_cross_entropy_ctc "
    "--label-smoothing 0.1 --ignore-prefix-size 1"
).split()


def train_argv(data, save_dir, *flags):
    """Return the arguments of a short training on the CPU."""
    return [
        str(data), "--user-dir", str(ROOT / "fbk_xattn"), "--task", "speech_to_text_ctc",
        "--train-subset", "train", "--valid-subset", "dev", *MODEL_FLAGS, *CRITERION_FLAGS,
        "--optimizer", "adam", "--lr", "1e-3", "--lr-scheduler", "inverse_sqrt",
        "--warmup-updates", "10", "--max-tokens", "600", "--max-update", "6", "--cpu",
        "--num-workers", "0", "--log-format", "simple", "--save-dir", str(save_dir), *flags,
    ]  # fmt: skip


def generate_argv(data, checkpoint, *flags):
    """Return the arguments of ``fairseq-generate`` on the CPU."""
    return [
        str(data), "--user-dir", str(ROOT / "fbk_xattn"), "--task", "speech_to_text_ctc",
        "--gen-subset", "test", "--path", str(checkpoint), "--beam", "2", "--max-len-b", "8",
        "--prefix-size", "1", "--max-tokens", "400", "--cpu", "--num-workers", "0",
        "--scoring", "sacrebleu", *map(str, flags),
    ]  # fmt: skip


@pytest.fixture(scope="session")
def checkpoint(data, tmp_path_factory):
    """A checkpoint of ``fairseq-train`` after a few updates."""
    import fbk_xattn.plugin  # noqa: F401  # isort: skip
    from fairseq import options
    from fairseq.dataclass.utils import convert_namespace_to_omegaconf
    from fairseq_cli import train

    folder = tmp_path_factory.mktemp("checkpoints")
    parser = options.get_training_parser()
    args = options.parse_args_and_arch(parser, input_args=train_argv(data, folder))
    train.main(convert_namespace_to_omegaconf(args))
    return folder / "checkpoint_last.pt"


def run_generate(data, checkpoint, *flags, output=None):
    """Run ``fairseq-generate`` in this process and return its standard output's lines.

    Raises what the command raises.
    """
    import contextlib
    import io

    import fbk_xattn.plugin  # noqa: F401  # isort: skip
    from fairseq import options
    from fairseq_cli import generate

    parser = options.get_generation_parser()
    args = options.parse_args_and_arch(parser, input_args=generate_argv(data, checkpoint, *flags))
    written = io.StringIO() if output is None else output
    with contextlib.redirect_stdout(written):
        generate.main(args)
    return written.getvalue().splitlines()


def start_generate(data, checkpoint, *flags, environment=None, **popen):
    """Start ``fairseq-generate`` as a process of its own."""
    command = [sys.executable, "-m", "fairseq_cli.generate"]
    return subprocess.Popen(
        [*command, *generate_argv(data, checkpoint, *flags)],
        env={**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **popen,
    )
