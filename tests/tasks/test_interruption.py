"""Shared between processes, a run gives the same files."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from fairseq_runs import generate_argv, run_generate, start_generate

from fbk_xattn.errors import InputError

PRINTED = ("S-", "T-", "H-", "D-", "P-")
FLAGS = ("--save-cross-attention", "--explain", "input", "encoder", "--num-masks", "90")


def files(store):
    return {path.name: path.read_bytes() for path in store.iterdir() if path.name != "meta.json"}


@pytest.fixture(scope="module")
def uninterrupted(data, checkpoint, tmp_path_factory):
    store = tmp_path_factory.mktemp("uninterrupted")
    run_generate(data, checkpoint, "--attribution-dir", store, *FLAGS)
    return files(store)


def start_three(data, checkpoint, store, flags=("--distributed-world-size", "--distributed-rank")):
    """Start as many processes with fairseq's flags; the last one comes when the others are done."""
    count_flag, index_flag = flags
    for ranks in ((0, 1), (2,)):
        processes = [
            start_generate(
                data, checkpoint, "--attribution-dir", store, *FLAGS,
                count_flag, 3, index_flag, rank,
            )
            for rank in ranks
        ]  # fmt: skip
        for process in processes:
            output, _ = process.communicate(timeout=300)
            assert process.returncode == 0, output
            yield output


def start_three_with_shorter_flags(data, checkpoint, store):
    """Start them with the flags that fairseq-generate itself takes no notice of."""
    return start_three(data, checkpoint, store, ("--num-shards", "--shard-id"))


def run_torchrun(data, checkpoint, store):
    """Run two processes of torchrun."""
    arguments = generate_argv(data, checkpoint, "--attribution-dir", store, *FLAGS)
    done = subprocess.run(
        [
            sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2",
            "-m", "fairseq_cli.generate", *arguments,
        ],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert "shard 1 of 2 (torchrun)" in done.stdout
    yield done.stdout


@pytest.mark.parametrize("launch", [start_three, start_three_with_shorter_flags, run_torchrun])
def test_shards_write_one_store(data, checkpoint, uninterrupted, tmp_path, launch):
    outputs = list(launch(data, checkpoint, tmp_path))
    assert files(tmp_path) == uninterrupted
    # Each utterance was printed by one process alone.
    assert sum(line.startswith("H-") for output in outputs for line in output.splitlines()) == 5


def test_processes_share_one_batch(data, checkpoint, tmp_path):
    one_batch = ("--max-tokens", 4000, *FLAGS)
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    expected = run_generate(data, checkpoint, "--attribution-dir", alone, *one_batch)
    printed = []
    for rank in range(2):
        flags = ("--distributed-world-size", 2, "--distributed-rank", rank)
        lines = run_generate(data, checkpoint, "--attribution-dir", shared, *one_batch, *flags)
        printed.append({line for line in lines if line[:2] in PRINTED})
    assert all(printed)
    assert printed[0].isdisjoint(printed[1])
    assert printed[0] | printed[1] == {line for line in expected if line[:2] in PRINTED}
    assert files(shared) == files(alone)


def test_more_processes_than_batches(data, checkpoint, tmp_path, caplog):
    flags = ("--distributed-world-size", 30, "--distributed-rank", 0)
    with caplog.at_level("INFO"), pytest.raises(SystemExit) as stop:
        run_generate(data, checkpoint, "--attribution-dir", tmp_path, *FLAGS, *flags)
    assert stop.value.code == 0
    assert "no utterance for this process" in caplog.text


def test_processes_that_would_write_one_results_file_are_refused(
    data, checkpoint, tmp_path, monkeypatch
):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match=r"--results-path .*one --results-path each"):
        run_generate(data, checkpoint, "--results-path", tmp_path)


def test_two_ways_to_share_are_refused(data, checkpoint, tmp_path):
    flags = ("--num-shards", 3, "--distributed-world-size", 2)
    with pytest.raises(InputError, match=r"--num-shards 3: .*--distributed-world-size 2"):
        run_generate(data, checkpoint, "--attribution-dir", tmp_path, *FLAGS, *flags)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--num-shards", 0), "--num-shards 0: expected at least 1"),
        (("--shard-id", 1), "--shard-id 1 without --num-shards: expected both"),
        (
            ("--distributed-rank", 1),
            "--distributed-rank 1 without --distributed-world-size: expected both",
        ),
    ],
)
def test_a_shard_of_nothing_is_refused(data, checkpoint, tmp_path, flags, message):
    with pytest.raises(InputError, match=message):
        run_generate(data, checkpoint, "--attribution-dir", tmp_path, *FLAGS, *flags)


def test_a_shard_that_is_not_there_is_refused(data, checkpoint, tmp_path):
    flags = ("--num-shards", 3, "--shard-id", 3)
    with pytest.raises(InputError, match=r"rank 3 \(fairseq flags\), expected 0 to 2"):
        run_generate(data, checkpoint, "--attribution-dir", tmp_path, *FLAGS, *flags)
