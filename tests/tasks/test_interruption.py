"""Killed and restarted, or shared between processes, a run gives the same files."""

from __future__ import annotations

import signal
import time

import pytest
from fairseq_runs import run_generate, start_generate

from fbk_xattn.errors import InputError
from fbk_xattn.store import AttributionStore

FLAGS = ("--save-cross-attention", "--explain", "input", "encoder", "--num-masks", "90")


def files(store):
    return {path.name: path.read_bytes() for path in store.iterdir() if path.name != "meta.json"}


@pytest.fixture(scope="module")
def uninterrupted(data, checkpoint, tmp_path_factory):
    store = tmp_path_factory.mktemp("uninterrupted")
    run_generate(data, checkpoint, "--attribution-dir", store, *FLAGS)
    return files(store)


def test_killed_in_the_middle_and_run_again(data, checkpoint, uninterrupted, tmp_path):
    process = start_generate(data, checkpoint, "--attribution-dir", tmp_path, *FLAGS)
    deadline = time.monotonic() + 300
    while not list(tmp_path.glob("[!.]*.npz")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    stored = AttributionStore.open(tmp_path).ids()
    assert 0 < len(stored) < 5
    for utterance_id in stored:
        AttributionStore.open(tmp_path).read(utterance_id)  # whole

    again = start_generate(data, checkpoint, "--attribution-dir", tmp_path, *FLAGS)
    output, _ = again.communicate(timeout=300)
    assert again.returncode == 0, output
    assert files(tmp_path) == uninterrupted


@pytest.mark.parametrize("launcher", ["torchrun", "SLURM", "fairseq"])
def test_shards_write_one_store(data, checkpoint, uninterrupted, tmp_path, launcher):
    def start(rank):
        environment, flags = {}, ()
        if launcher == "torchrun":
            environment = {"RANK": str(rank), "WORLD_SIZE": "3", "LOCAL_RANK": str(rank)}
        elif launcher == "SLURM":
            environment = {
                "SLURM_PROCID": str(rank), "SLURM_NTASKS": "3", "SLURM_LOCALID": str(rank),
                "SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0",
            }  # fmt: skip
        else:
            flags = ("--distributed-world-size", 3, "--distributed-rank", rank)
        return start_generate(
            data, checkpoint, "--attribution-dir", tmp_path, *FLAGS, *flags, environment=environment
        )

    outputs = []
    for processes in ([start(0), start(1)], [start(2)]):
        for process in processes:
            outputs.append(process.communicate(timeout=300)[0])
            assert process.returncode == 0, outputs[-1]
    assert files(tmp_path) == uninterrupted
    # Each utterance was decoded by one process alone.
    assert sum(line.startswith("H-") for output in outputs for line in output.splitlines()) == 5


def test_more_processes_than_batches(data, checkpoint, tmp_path):
    flags = ("--distributed-world-size", 9, "--distributed-rank", 8)
    process = start_generate(data, checkpoint, "--attribution-dir", tmp_path, *FLAGS, *flags)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    assert "no utterance for this process" in output


def test_processes_that_would_write_one_results_file_are_refused(
    data, checkpoint, tmp_path, monkeypatch
):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match=r"--results-path .*one --results-path each"):
        run_generate(data, checkpoint, "--results-path", tmp_path)
