"""Utterances that cannot be explained do not stop the others, and are reported."""

from __future__ import annotations

import dataclasses
import os
import resource
import shutil
import socket
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pytest
import torch
from fairseq.sequence_generator import SequenceGenerator
from fairseq_runs import run_generate, start_generate

from fbk_xattn.checkpoints import load_checkpoint
from fbk_xattn.data.manifest import read_manifest, write_manifest
from fbk_xattn.errors import InputError
from fbk_xattn.explain import Explainer
from fbk_xattn.generation.generator import EncoderKeepingGenerator
from fbk_xattn.store import AttributionStore

FLAGS = ("--explain", "encoder", "--num-masks", "4")


@pytest.fixture
def broken(data, tmp_path):
    """A data folder whose test split has one unreadable utterance among five."""
    folder = tmp_path / "data"
    shutil.copytree(data, folder)
    rows = read_manifest(folder / "test.tsv")
    np.save(folder / "bad.npy", np.zeros((rows[1].n_frames, 40), dtype=np.float32))
    rows[1] = dataclasses.replace(rows[1], audio="bad.npy")
    write_manifest(folder / "test.tsv", rows)
    return folder, rows[1].id


def test_an_unreadable_utterance_is_reported_and_the_others_are_stored(
    broken, checkpoint, tmp_path
):
    folder, bad = broken
    store = tmp_path / "store"
    with pytest.raises(SystemExit, match=r"1 of 5 utterances failed.*'test/1'.*bad.npy.*40.*80"):
        run_generate(folder, checkpoint, "--attribution-dir", store, *FLAGS)
    ids = {row.id for row in read_manifest(folder / "test.tsv")}
    assert set(AttributionStore.open(store).ids()) == ids - {bad}


def test_its_report_is_one_line_and_the_exit_code_is_not_0(broken, checkpoint, tmp_path):
    process = start_generate(broken[0], checkpoint, "--attribution-dir", tmp_path / "store", *FLAGS)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 1
    assert "Traceback" not in output
    (line,) = [line for line in output.splitlines() if line.startswith("fbk_xattn: error")]
    assert "bad.npy" in line
    assert "4 decoded, 0 already there, 1 failed" in output


def test_an_utterance_whose_explanation_fails_does_not_stop_the_others(
    data, checkpoint, tmp_path, monkeypatch
):
    explain = Explainer.explain

    def fail_once(self, model, utterance, *args, **kwargs):
        if utterance.id == "test/2":
            raise RuntimeError("no memory left for this one")
        return explain(self, model, utterance, *args, **kwargs)

    monkeypatch.setattr(Explainer, "explain", fail_once)
    with pytest.raises(SystemExit, match=r"1 of 5 .*'test/2': RuntimeError: no memory left for"):
        run_generate(data, checkpoint, "--attribution-dir", tmp_path, *FLAGS)
    assert "test/2" not in AttributionStore.open(tmp_path)
    assert len(AttributionStore.open(tmp_path)) == 4


def fail_at(monkeypatch, n_frames, error):
    """Let beam search fail on batches whose longest utterance has ``n_frames``."""
    generate = EncoderKeepingGenerator.generate

    def failing(self, models, sample, **kwargs):
        if sample["net_input"]["src_tokens"].shape[1] == n_frames:
            raise error
        return generate(self, models, sample, **kwargs)

    monkeypatch.setattr(EncoderKeepingGenerator, "generate", failing)


@pytest.fixture
def longest(data):
    return max(read_manifest(data / "test.tsv"), key=lambda row: row.n_frames)


def test_a_failure_in_beam_search_does_not_stop_the_others(
    data, checkpoint, tmp_path, monkeypatch, longest
):
    fail_at(monkeypatch, longest.n_frames, IndexError("index out of range in self"))
    flags = ("--attribution-dir", tmp_path, *FLAGS, "--batch-size", "2")
    with pytest.raises(SystemExit, match=r"2 of 5 .*: IndexError: index out of range in self"):
        run_generate(data, checkpoint, *flags)
    store = AttributionStore.open(tmp_path)
    assert len(store) == 3
    assert longest.id not in store
    monkeypatch.undo()
    lines = run_generate(data, checkpoint, *flags)
    assert len(AttributionStore.open(tmp_path)) == 5
    assert sum(line.startswith("H-") for line in lines) == 5


def test_what_the_store_has_of_a_batch_that_fails_is_there(
    data, checkpoint, tmp_path, monkeypatch, longest, caplog
):
    flags = ("--attribution-dir", tmp_path, *FLAGS, "--batch-size", "5")
    run_generate(data, checkpoint, *flags)
    AttributionStore.open(tmp_path).file("test/2").unlink()
    fail_at(monkeypatch, longest.n_frames, RuntimeError("no"))
    with caplog.at_level("INFO"), pytest.raises(SystemExit, match=r"1 of 5 .*'test/2'"):
        run_generate(data, checkpoint, *flags)
    assert "0 decoded, 4 already there, 1 failed, 0 left" in caplog.text


def test_a_device_without_memory_for_a_batch_is_reported_with_what_helps(
    data, checkpoint, tmp_path, monkeypatch, longest
):
    fail_at(monkeypatch, longest.n_frames, torch.cuda.OutOfMemoryError("CUDA out of memory"))
    flags = ("--attribution-dir", tmp_path, *FLAGS, "--batch-size", "2")
    expected = f"a batch of 2 utterances of up to {longest.n_frames} frames; a lower --max-tokens"
    with pytest.raises(SystemExit, match=f"2 of 5 .*: out of memory in decoding {expected}"):
        run_generate(data, checkpoint, *flags)


def test_plain_decoding_goes_on_after_a_failure_too(data, checkpoint, monkeypatch, longest):
    generate = SequenceGenerator.generate

    def failing(self, models, sample, **kwargs):
        if sample["net_input"]["src_tokens"].shape[1] == longest.n_frames:
            raise RuntimeError("no")
        return generate(self, models, sample, **kwargs)

    monkeypatch.setattr(SequenceGenerator, "generate", failing)
    with pytest.raises(SystemExit, match="1 of 5 utterances failed"):
        run_generate(data, checkpoint, "--batch-size", "1")


def full_disk(store, utterance_id):
    """Let this process write the utterance to a device that is always full."""
    mark = blake2b(store.file(utterance_id).name.encode(), digest_size=16).hexdigest()
    temporary = store.path / f".{mark}.{socket.gethostname()}.{os.getpid()}.tmp"
    temporary.symlink_to("/dev/full")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk_ends_the_run_at_once_and_keeps_what_is_stored(
    data, checkpoint, tmp_path, monkeypatch, caplog
):
    ids, explained = [row.id for row in read_manifest(data / "test.tsv")], []
    explain = Explainer.explain

    def recording(self, model, utterance, *args, **kwargs):
        explained.append(utterance.id)
        if len(explained) == 3:
            full_disk(AttributionStore.open(tmp_path), utterance.id)
        return explain(self, model, utterance, *args, **kwargs)

    monkeypatch.setattr(Explainer, "explain", recording)
    flags = ("--attribution-dir", tmp_path, *FLAGS)
    with caplog.at_level("INFO"), pytest.raises(SystemExit) as stop:
        run_generate(data, checkpoint, *flags)
    file = AttributionStore.open(tmp_path).file(explained[2])
    assert stop.value.code == (
        f"fbk_xattn: error: {file}: cannot be written (No space left on device); free space and "
        "run the same command again, it goes on from what is stored (3 of 5 utterances left)"
    )
    assert len(explained) <= 4  # the next was begun while this was written; no further one is
    assert AttributionStore.open(tmp_path).ids() == sorted(explained[:2])
    assert "2 decoded, 0 already there, 0 failed, 3 left" in caplog.text
    assert not list(tmp_path.glob(".*"))
    run_generate(data, checkpoint, *flags)
    assert AttributionStore.open(tmp_path).ids() == sorted(ids)


@pytest.mark.parametrize("limit", [100, 5_000])
def test_a_file_that_is_too_large_is_the_failure_of_its_utterance(
    data, checkpoint, tmp_path, limit
):
    flags = ("--attribution-dir", tmp_path, *FLAGS)
    run_generate(data, checkpoint, *flags)
    store = AttributionStore.open(tmp_path)
    store.file("test/2").unlink()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        with pytest.raises(SystemExit, match=r"1 of 5 .*'test/2': OSError: .*File too large"):
            run_generate(data, checkpoint, *flags)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert len(store) == 4
    assert not list(tmp_path.glob(".*"))


def test_a_folder_that_is_gone_ends_the_run(data, checkpoint, tmp_path, monkeypatch):
    explain, folder = Explainer.explain, tmp_path / "store"

    def removing(self, *args, **kwargs):
        shutil.rmtree(folder)
        return explain(self, *args, **kwargs)

    monkeypatch.setattr(Explainer, "explain", removing)
    with pytest.raises(SystemExit, match=r"cannot be written \(No such file or directory\); make"):
        run_generate(data, checkpoint, "--attribution-dir", folder, *FLAGS)


@pytest.mark.parametrize("folder", ["file/store", "/proc/store", "/dev/null"])
def test_a_store_that_cannot_be_created_is_named(data, checkpoint, tmp_path, folder):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=f"{folder}: cannot write there .*writable folder"):
        run_generate(data, checkpoint, "--attribution-dir", tmp_path / folder, *FLAGS)


@pytest.mark.parametrize("limit", ["--max-source-positions", "--max-tokens"])
def test_an_utterance_that_is_too_long_counts_as_failed(data, checkpoint, tmp_path, limit):
    longest = max(row.n_frames for row in read_manifest(data / "test.tsv"))
    flags = ("--attribution-dir", tmp_path, *FLAGS, limit, longest - 1)
    with pytest.raises(
        SystemExit, match=f"1 of 5 .*{longest} frames, expected at most {longest - 1}.*{limit}"
    ):
        run_generate(data, checkpoint, *flags)
    assert len(AttributionStore.open(tmp_path)) == 4


@pytest.mark.parametrize(
    ("flag", "value", "message"),
    [
        ("--explain", "inputs", "--explain inputs: expected input or encoder"),
        ("--gen-subset", "tset", "tset.tsv: no such manifest"),
    ],
)
def test_wrong_input_gives_one_line_and_exit_code_1(data, checkpoint, flag, value, message):
    process = start_generate(data, checkpoint, flag, value)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 1
    assert "Traceback" not in output
    assert [line for line in output.splitlines() if line.startswith("fbk_xattn: error: ")] == [
        line for line in output.splitlines() if message in line and line.startswith("fbk_xattn")
    ]
    assert output.splitlines()[-1].startswith("fbk_xattn: error: ")


def test_a_checkpoint_of_another_vocabulary_is_named(data, checkpoint, tmp_path):
    folder = tmp_path / "data"
    shutil.copytree(data, folder)
    with (folder / "dict.txt").open("a") as vocabulary:
        vocabulary.write("extra 1\n")
    with pytest.raises(InputError, match=r"checkpoint: .*\.weight is .*, expected .*vocabulary"):
        run_generate(folder, checkpoint, "--attribution-dir", tmp_path / "store", *FLAGS)
    assert not (tmp_path / "store").exists()


def test_a_checkpoint_of_another_architecture_is_named(data, checkpoint, tmp_path):
    other = load_checkpoint(checkpoint)
    other["cfg"]["model"].arch = other["cfg"]["model"]._name = "transformer"
    torch.save(other, tmp_path / "transformer.pt")
    with pytest.raises(InputError, match="checkpoint of architecture transformer: cannot be built"):
        run_generate(data, tmp_path / "transformer.pt")


def test_a_missing_checkpoint_is_named(data, tmp_path):
    with pytest.raises(InputError, match=r"none.pt: no such checkpoint"):
        run_generate(data, tmp_path / "none.pt")


class RunsCode:
    """What a hostile checkpoint would hold."""

    def __reduce__(self):
        return os.system, ("touch executed",)


def test_a_hostile_checkpoint_is_refused_and_runs_nothing(data, checkpoint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    hostile = load_checkpoint(checkpoint)
    hostile["extra_state"] = RunsCode()
    torch.save(hostile, "hostile.pt")
    with pytest.raises(InputError, match=r"hostile.pt: unreadable checkpoint \(it holds .*system"):
        run_generate(data, "hostile.pt")
    assert not Path("executed").exists()
