"""Running fairseq's commands on the tests' data, in this process or in one of their own."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from pathlib import Path

from fairseq import options
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq_cli import generate, train

import fbk_xattn.plugin  # noqa: F401

ROOT = Path(__file__).parents[1]

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


def run_train(data, save_dir, *flags):
    """Run ``fairseq-train`` in this process."""
    parser = options.get_training_parser()
    args = options.parse_args_and_arch(parser, input_args=train_argv(data, save_dir, *flags))
    train.main(convert_namespace_to_omegaconf(args))


def run_generate(data, checkpoint, *flags):
    """Run ``fairseq-generate`` in this process and return its standard output's lines.

    Raises what the command raises.
    """
    written = io.StringIO()
    with contextlib.redirect_stdout(written):
        generate.main(generate_config(generate_argv(data, checkpoint, *flags)))
    return written.getvalue().splitlines()


def generate_config(argv):
    """Parse the arguments of ``fairseq-generate``."""
    args = options.parse_args_and_arch(options.get_generation_parser(), input_args=argv)
    return convert_namespace_to_omegaconf(args)


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
