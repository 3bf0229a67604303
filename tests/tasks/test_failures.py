"""Utterances that cannot be explained do not stop the others, and are reported."""

from __future__ import annotations

import dataclasses
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from fairseq_runs import run_generate, start_generate

from fbk_xattn.checkpoints import load_checkpoint
from fbk_xattn.data.manifest import read_manifest, write_manifest
from fbk_xattn.errors import InputError
from fbk_xattn.explain import Explainer
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
    with pytest.raises(SystemExit, match=r"1 of 5 .*'test/2': no memory left for this one"):
        run_generate(data, checkpoint, "--attribution-dir", tmp_path, *FLAGS)
    assert "test/2" not in AttributionStore.open(tmp_path)
    assert len(AttributionStore.open(tmp_path)) == 4


def test_an_utterance_that_is_too_long_counts_as_failed(data, checkpoint, tmp_path):
    longest = max(row.n_frames for row in read_manifest(data / "test.tsv"))
    flags = ("--attribution-dir", tmp_path, *FLAGS, "--max-source-positions", longest - 1)
    with pytest.raises(SystemExit, match=f"1 of 5 .*{longest} frames, expected at most"):
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
