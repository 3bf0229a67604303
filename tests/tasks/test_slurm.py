"""The job script for SLURM, with commands that stand in for SLURM's."""

from __future__ import annotations

import dataclasses
import shutil

import numpy as np
import pytest
from fairseq_runs import ROOT, run_generate
from fake_slurm import FakeSlurm

from fbk_xattn.data.manifest import read_manifest, write_manifest
from fbk_xattn.store import AttributionStore

SCRIPT = ROOT / "scripts" / "slurm" / "generate_explain.sbatch"
FLAGS = (
    "--gen-subset", "train,dev,test", "--beam", "2", "--max-len-b", "8", "--max-tokens", "400",
    "--cpu", "--num-workers", "1", "--scoring", "sacrebleu",
)  # fmt: skip
MASKS = ("--num-masks", "90")
USER_DIR = {"USER_DIR": str(ROOT / "fbk_xattn")}


def visible(store):
    return {path.name: path.read_bytes() for path in store.glob("[!.]*.npz")}


@pytest.fixture
def slurm(tmp_path):
    return FakeSlurm(tmp_path / "cluster")


def test_time_limit_requeue_and_the_end(slurm, data, checkpoint, tmp_path):
    out, whole = tmp_path / "out", tmp_path / "whole"
    explain = ("--save-cross-attention", "--explain", "input", "encoder", *MASKS)
    flags = (*FLAGS, "--no-repeat-ngram-size", "5", "--attribution-dir", whole)
    run_generate(data, checkpoint, *flags, *explain)
    job = slurm.sbatch(
        SCRIPT, data, checkpoint, out, *FLAGS, *MASKS,
        FAKE_TASKS="2", FAKE_OUT=str(out), FAKE_STORED="1", **USER_DIR,
    )  # fmt: skip
    logs = slurm.log(0) + slurm.log(1)
    assert job.returncode == 0, job.stdout + logs
    assert job.stdout.count("job runs again") == 1
    assert "tasks ended with code 75" in job.stdout or "tasks ended with code 138" in job.stdout
    assert "stopped by SIGUSR1" in logs
    assert " 1 failed" not in logs
    assert visible(out) == visible(whole)
    assert {path.name for path in out.iterdir()} == {"meta.json", *visible(whole)}
    for task in range(2):
        assert f"shard {task} of 2 (SLURM)" in slurm.log(task)


def test_a_failed_utterance_fails_the_job_which_is_not_queued_again(
    slurm, data, checkpoint, tmp_path
):
    folder, out = tmp_path / "data", tmp_path / "out"
    shutil.copytree(data, folder)
    rows = read_manifest(folder / "test.tsv")
    np.save(folder / "bad.npy", np.zeros((rows[1].n_frames, 40), dtype=np.float32))
    rows[1] = dataclasses.replace(rows[1], audio="bad.npy")
    write_manifest(folder / "test.tsv", rows)
    job = slurm.sbatch(
        SCRIPT, folder, checkpoint, out, *FLAGS, "--gen-subset", "test", "--num-masks", "3",
        FAKE_TASKS="1", **USER_DIR,
    )  # fmt: skip
    assert job.returncode == 1, job.stdout + slurm.log(0)
    assert "runs again" not in job.stdout
    assert "fbk_xattn: error: 1 of 5 utterances failed, first 'test/1'" in slurm.log(0)
    assert len(AttributionStore.open(out)) == 4


# Stores one more utterance when told to stop, unless it has none to store.
STOPPING = """
import signal, sys, time
from pathlib import Path
out = Path(sys.argv[sys.argv.index("--attribution-dir") + 1])
def stop(*_):
    if "--nothing" not in sys.argv:
        (out / f"{len(list(out.iterdir()))}.npz").touch()
    sys.exit(75)
signal.signal(signal.SIGUSR1, stop)
if "--done" in sys.argv or (out / "0.npz").exists():
    sys.exit(0)
print("ready", flush=True)
Path("started").touch()
time.sleep(60)
"""


@pytest.fixture
def stopping(slurm):
    slurm.command("fairseq-generate", STOPPING)
    # The job is told once its task is listening.
    srun = (slurm.folder / "bin" / "srun").read_text()
    (slurm.folder / "bin" / "srun").write_text(srun.replace('Path("started").touch()\n', ""))
    (slurm.folder / "out").mkdir()
    return slurm


@pytest.mark.parametrize("signal", ["SIGUSR1", "SIGTERM"])
def test_either_signal_is_passed_on_and_requeues(stopping, signal):
    job = stopping.sbatch(
        SCRIPT, "data", "checkpoint", "out",
        FAKE_TASKS="1", FAKE_OUT="out", FAKE_STORED="0", FAKE_SIGNAL=signal,
    )  # fmt: skip
    assert job.returncode == 0, job.stdout
    assert "1 utterances stored (0 before)" in job.stdout
    assert job.stdout.count("job runs again") == 1


@pytest.mark.parametrize(
    ("flags", "state", "reason"),
    [
        (["--nothing"], "RUNNING", "no utterance was finished"),
        ([], "COMPLETING", "the job was cancelled"),
    ],
)
def test_stopped_but_not_queued_again(stopping, flags, state, reason):
    job = stopping.sbatch(
        SCRIPT, "data", "checkpoint", "out", *flags,
        FAKE_TASKS="1", FAKE_OUT="out", FAKE_STORED="0", FAKE_STATE=state,
    )  # fmt: skip
    assert job.returncode == 75, job.stdout
    assert f"not queued again, as {reason}" in job.stdout
    assert "runs again" not in job.stdout


def test_a_store_behind_a_symbolic_link_is_counted(stopping):
    (stopping.folder / "link").symlink_to("out")
    job = stopping.sbatch(
        SCRIPT, "data", "checkpoint", "link", FAKE_TASKS="1", FAKE_OUT="out", FAKE_STORED="0"
    )
    assert job.returncode == 0, job.stdout
    assert "1 utterances stored (0 before)" in job.stdout
    assert job.stdout.count("job runs again") == 1


# Fails the first FAKE_FAILURES times that it is asked to do FAKE_FAILING.
SCONTROL = """
import os, sys
from pathlib import Path
calls = Path("calls")
calls.write_text((calls.read_text() if calls.exists() else "") + sys.argv[1] + " ")
asked = calls.read_text().split().count(sys.argv[1])
if sys.argv[1] in os.environ["FAKE_FAILING"].split() and asked <= int(os.environ["FAKE_FAILURES"]):
    sys.exit("Unable to contact slurm controller (connect failure)")
if sys.argv[1] == "requeue":
    Path("requeued").touch()
else:
    print("JobState=RUNNING")
"""


@pytest.mark.parametrize(
    ("failing", "failures", "calls"),
    [
        ("show requeue", "2", "show show show requeue requeue requeue"),
        ("show", "9", "show show show requeue"),
    ],
)
def test_a_controller_that_is_busy_is_asked_again(stopping, failing, failures, calls):
    stopping.command("scontrol", SCONTROL)
    job = stopping.sbatch(
        SCRIPT, "data", "checkpoint", "out", FAKE_TASKS="1", FAKE_OUT="out", FAKE_STORED="0",
        FAKE_FAILING=failing, FAKE_FAILURES=failures, SCONTROL_PAUSE="0",
    )  # fmt: skip
    assert job.returncode == 0, job.stdout
    assert job.stdout.count("job runs again") == 1
    assert (stopping.folder / "calls").read_text().split() == calls.split()


def test_a_job_that_cannot_be_requeued_says_so(stopping):
    stopping.command("scontrol", SCONTROL)
    job = stopping.sbatch(
        SCRIPT, "data", "checkpoint", "out", FAKE_TASKS="1", FAKE_OUT="out", FAKE_STORED="0",
        FAKE_FAILING="requeue", FAKE_FAILURES="9", SCONTROL_PAUSE="0",
    )  # fmt: skip
    assert job.returncode == 75, job.stdout
    last = job.stdout.splitlines()[-1]
    assert last.endswith("not queued again, as scontrol requeue failed: the same command goes on")
    assert (stopping.folder / "calls").read_text().split().count("requeue") == 3


def test_tasks_that_a_signal_ends_while_they_load_are_stopped_ones(stopping):
    # Another task has stored something; this one listens to no signal yet.
    loading = STOPPING.replace("signal.signal(signal.SIGUSR1, stop)\n", "").replace(
        'print("ready"', '(out / "0.npz").touch(); print("ready"'
    )
    stopping.command("fairseq-generate", loading)
    srun = (stopping.folder / "bin" / "srun").read_text()
    # SLURM sends TERM to the tasks, too.
    srun = srun.replace("os.killpg(task.pid, number)", "os.killpg(task.pid, signal.SIGTERM)")
    (stopping.folder / "bin" / "srun").write_text(srun)
    job = stopping.sbatch(
        SCRIPT, "data", "checkpoint", "out",
        FAKE_TASKS="1", FAKE_OUT="out", FAKE_STORED="0", FAKE_SIGNAL="SIGTERM",
    )  # fmt: skip
    assert job.returncode == 0, job.stdout
    assert "tasks ended with code 143" in job.stdout
    assert job.stdout.count("job runs again") == 1


@pytest.mark.parametrize(
    "flags",
    [
        ("--attribution-dir", "other"),
        ("--attribution-dir=other",),
        ("--num-shards", "2"),
        ("--shard-id=1",),
    ],
)
def test_flags_that_the_script_sets_itself_are_refused(stopping, flags):
    job = stopping.sbatch(SCRIPT, "data", "checkpoint", "out", "--cpu", *flags, FAKE_TASKS="1")
    assert job.returncode == 2, job.stdout
    (line,) = job.stdout.splitlines()
    assert line.startswith(f"generate_explain: {flags[0].partition('=')[0]}: ")
    assert not (stopping.folder / "started").exists()


def test_the_script_names_what_it_lacks(slurm):
    job = slurm.sbatch(SCRIPT, "data", FAKE_TASKS="1")
    assert job.returncode == 2
    assert "DATA CHECKPOINT OUT" in job.stdout
