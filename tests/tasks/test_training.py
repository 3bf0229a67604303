"""``fairseq-train`` on the tests' data."""

from __future__ import annotations

import dataclasses
import shutil

import pytest
import torch
from fairseq_runs import run_train

from fbk_xattn.checkpoints import load_checkpoint
from fbk_xattn.data.manifest import read_manifest, write_manifest
from fbk_xattn.errors import InputError


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ("src_text", r"train.tsv, utterance 'train/3': src_text is empty.*transcript"),
        ("tgt_text", r"train.tsv, utterance 'train/3': tgt_text is empty.*target text"),
    ],
)
def test_a_row_without_text_is_named(data, tmp_path, column, message):
    folder = tmp_path / "data"
    shutil.copytree(data, folder)
    rows = read_manifest(folder / "train.tsv")
    rows[3] = dataclasses.replace(rows[3], **{column: " "})
    write_manifest(folder / "train.tsv", rows)
    with pytest.raises(InputError, match=message):
        run_train(folder, tmp_path / "checkpoints")


def test_an_utterance_that_cannot_be_read_stops_training_and_is_named(data, tmp_path):
    folder = tmp_path / "data"
    shutil.copytree(data, folder)
    rows = read_manifest(folder / "train.tsv")
    rows[3] = dataclasses.replace(rows[3], audio="gone.npy")
    write_manifest(folder / "train.tsv", rows)
    with pytest.raises(InputError, match=r"train, utterance 'train/3': .*gone.npy: no such file"):
        run_train(folder, tmp_path / "checkpoints")


def test_a_second_stage_starts_from_the_weights_of_the_first(data, checkpoint, tmp_path):
    run_train(
        data, tmp_path, "--finetune-from-model", str(checkpoint), "--max-update", "1",
        "--lr", "1e-12", "--lr-scheduler", "fixed", "--warmup-updates", "0",
    )  # fmt: skip
    first = load_checkpoint(checkpoint)["model"]
    second = load_checkpoint(tmp_path / "checkpoint_last.pt")["model"]
    for name, weight in first.items():
        if "batchnorm" not in name:
            torch.testing.assert_close(second[name], weight, rtol=0, atol=1e-9)
