"""``fairseq-train`` in several processes, and in one that is killed and started again."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
import yaml
from fairseq_runs import run_train, train_argv

from fbk_xattn.checkpoints import load_checkpoint
from fbk_xattn.data.manifest import read_manifest, write_manifest
from fbk_xattn.errors import InputError

NO_DROPOUT = (
    "--dropout 0 --attention-dropout 0 --activation-dropout 0 --conformer-feedforward-dropout 0 "
    "--conformer-attention-dropout 0 --conformer-conv-dropout 0"
).split()
# Adam would make full steps of the rounding that is the gradient of a key's bias.
FIVE_UPDATES = [
    "--optimizer", "sgd", "--momentum", "0.9", "--lr", "0.02", "--lr-scheduler", "fixed",
    "--max-update", "5", "--save-interval-updates", "1",
]  # fmt: skip


def start_train(argv, **environment):
    """Start ``fairseq-train`` as a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "fairseq_cli.train", *argv],
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run_two_processes(argv):
    """Run one training in two processes."""
    with contextlib.closing(socket.socket()) as s:
        s.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{s.getsockname()[1]}"
    processes = [
        start_train(
            [
                *argv, "--distributed-world-size", "2", "--distributed-rank", str(rank),
                "--distributed-init-method", address, "--distributed-backend", "gloo",
                "--distributed-no-spawn", "--ddp-backend", "legacy_ddp",
            ]
        )
        for rank in range(2)
    ]  # fmt: skip
    for process in processes:
        output, _ = process.communicate(timeout=120)
        assert process.returncode == 0, output


def weights(folder, beyond=0):
    """Return the weights after each update beyond one, by the update's number."""
    found = {}
    for path in folder.glob("checkpoint?*.pt"):
        in_name = re.search(r"_(\d+)\.pt", path.name)
        if in_name is None or int(in_name[1]) > beyond:
            checkpoint = load_checkpoint(path)
            found[checkpoint["optimizer_history"][-1]["num_updates"]] = checkpoint["model"]
    return {update: found[update] for update in sorted(found) if update > beyond}


def assert_same_updates(one, two, without=(), **tolerance):
    assert list(one) == list(two)
    for update, expected in one.items():
        for name, weight in expected.items():
            if not name.endswith(without):
                message = f"update {update}, {name}"
                torch.testing.assert_close(two[update][name], weight, msg=message, **tolerance)


def test_two_processes_make_the_updates_of_one_with_an_update_frequency_of_two(data, tmp_path):
    """Each batch is normalised by itself, so only the running statistics are of fewer batches."""
    flags = [*NO_DROPOUT, *FIVE_UPDATES, "--batch-size", "1"]
    run_train(data, tmp_path / "one", *flags, "--update-freq", "2")
    run_two_processes(train_argv(data, tmp_path / "two", *flags))
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    assert list(one) == [1, 2, 3, 4, 5]
    running = ("running_mean", "running_var", "num_batches_tracked")
    assert_same_updates(one, two, without=running, rtol=1e-4, atol=1e-6)


@pytest.fixture
def same_length_data(data, tmp_path):
    """Twelve training utterances of one length, in one order: no batch of them has padding."""
    folder = tmp_path / "data"
    shutil.copytree(data, folder)
    rng = np.random.default_rng(4)
    rows = read_manifest(folder / "train.tsv")
    for number, row in enumerate(rows * 2):
        np.save(folder / f"{number}.npy", rng.standard_normal((90, 80), dtype=np.float32))
        same = dataclasses.replace(row, id=f"same/{number}", audio=f"{number}.npy", n_frames=90)
        rows[number:] = [same, *rows[number + 1 :]]
    write_manifest(folder / "train.tsv", rows[:12])
    config = yaml.safe_load((folder / "config.yaml").read_text())
    (folder / "config.yaml").write_text(yaml.safe_dump({**config, "shuffle": False}))
    return folder


def test_two_processes_normalise_their_batches_as_one_batch(same_length_data, tmp_path):
    flags = [*NO_DROPOUT, *FIVE_UPDATES, "--max-tokens", "9000", "--curriculum", "9"]
    one = train_argv(same_length_data, tmp_path / "one", *flags, "--batch-size", "4")
    two = train_argv(same_length_data, tmp_path / "two", *flags, "--batch-size", "2")
    one.remove("--no-syncbatchnorm")
    two.remove("--no-syncbatchnorm")
    process = start_train(one)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    run_two_processes(two)
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    assert list(one) == [1, 2, 3, 4, 5]
    counts = ("num_batches_tracked",)
    assert_same_updates(one, two, without=counts, rtol=1e-4, atol=1e-5)


def kill_after(n_updates, process, folder):
    """Kill a training after so many updates or some more; return how many it kept."""
    last, deadline = folder / "checkpoint_last.pt", time.monotonic() + 60
    while time.monotonic() < deadline:
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.01)
        # fairseq copies to this file, and a kill meanwhile would leave half of it.
        process.send_signal(signal.SIGSTOP)
        with contextlib.suppress(InputError):
            kept = load_checkpoint(last)["optimizer_history"][-1]["num_updates"]
            if kept >= n_updates:
                process.kill()
                process.communicate()
                return kept
        process.send_signal(signal.SIGCONT)
    raise AssertionError(f"no {n_updates} updates within a minute")


def test_killed_training_goes_on_to_the_same_updates(data, tmp_path):
    """With dropout, SpecAugment, sampled subwords and Adam, in the middle of an epoch."""
    flags = ["--save-interval-updates", "1", "--num-workers", "1"]
    flags += ["--max-update", "16", "--disable-validation", "--subword-regularization", "0.2"]
    run_train(data, tmp_path / "whole", *flags)
    folder = tmp_path / "killed"
    n_updates = kill_after(3, start_train(train_argv(data, folder, *flags)), folder)
    run_train(data, folder, *flags, "--max-update", str(n_updates + 5))
    whole, resumed = weights(tmp_path / "whole", n_updates), weights(folder, n_updates)
    assert list(resumed) == list(range(n_updates + 1, n_updates + 6))
    assert_same_updates({u: whole[u] for u in resumed}, resumed, rtol=1e-5, atol=1e-7)


@pytest.fixture
def equal_lengths(data, tmp_path):
    """Training data of which many utterances have one length, also as two corpora."""
    folder = tmp_path / "data"
    shutil.copytree(data, folder)
    rows = [dataclasses.replace(row, n_frames=60) for row in read_manifest(folder / "train.tsv")]
    write_manifest(folder / "train.tsv", rows)
    for name, language, part in (("train_a", "en", rows[:7]), ("train_b", "it", rows[7:])):
        languages = {"src_lang": language, "tgt_lang": language}
        part = [dataclasses.replace(row, **languages) for row in part]
        write_manifest(folder / f"{name}.tsv", part)
    return folder


@pytest.mark.parametrize("interrupted_after", ["end of epoch 1", "middle of epoch 2"])
@pytest.mark.parametrize("sampling_alpha", [None, 0.5])
def test_training_interrupted_in_any_epoch_goes_on_to_the_same_updates(
    equal_lengths, tmp_path, sampling_alpha, interrupted_after
):
    flags = ["--save-interval-updates", "1", "--disable-validation", "--batch-size", "3"]
    if sampling_alpha is not None:
        path = equal_lengths / "config.yaml"
        config = yaml.safe_load(path.read_text())
        path.write_text(yaml.safe_dump({**config, "sampling_alpha": sampling_alpha}))
        flags += ["--train-subset", "train_a,train_b"]
    run_train(equal_lengths, tmp_path / "whole", *flags, "--max-update", "10")
    kept = 4 if interrupted_after == "end of epoch 1" else 6  # of 4 an epoch
    run_train(equal_lengths, tmp_path / "part", *flags, "--max-update", str(kept))
    run_train(equal_lengths, tmp_path / "part", *flags, "--max-update", "10")
    whole, resumed = weights(tmp_path / "whole", kept), weights(tmp_path / "part", kept)
    assert_same_updates(whole, resumed, rtol=1e-5, atol=1e-7)
