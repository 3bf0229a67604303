"""Flags of ``fairseq-train`` that would be ignored or fail late, and what counts as training."""

from __future__ import annotations

import dataclasses
import shutil

import pytest
import yaml
from fairseq.checkpoint_utils import load_model_ensemble_and_task
from fairseq_runs import run_train

from fbk_xattn.data.dataset import SpeechToTextCTCDataset
from fbk_xattn.data.manifest import read_manifest, write_manifest
from fbk_xattn.errors import InputError
from fbk_xattn.tasks.speech_to_text_ctc_asr_st import SpeechToTextASRSTTask

ONE_UPDATE = ("--max-update", "1")


@pytest.fixture
def made(monkeypatch):
    """Whether each split that is made is trained on."""
    splits: dict[str, bool] = {}
    make = SpeechToTextCTCDataset.__init__

    def noted(self, split, rows, is_train_split, *args, **kwargs):
        splits[split] = is_train_split
        make(self, split, rows, is_train_split, *args, **kwargs)

    monkeypatch.setattr(SpeechToTextCTCDataset, "__init__", noted)
    return splits


@pytest.fixture
def folder(data, tmp_path):
    """A copy of the data folder with a second training split."""
    copy = tmp_path / "data"
    shutil.copytree(data, copy)
    shutil.copy(copy / "train.tsv", copy / "train_b.tsv")
    return copy


def test_only_the_split_to_train_on_is_transformed_for_training(folder, tmp_path, made):
    run_train(folder, tmp_path / "save", *ONE_UPDATE, "--valid-subset", "dev,train_b")
    assert made == {"train": True, "dev": False, "train_b": False}


def test_nothing_is_transformed_for_training_in_validation(data, checkpoint, made):
    _, _, task = load_model_ensemble_and_task([str(checkpoint)], {"data": str(data)})
    task.load_dataset("train")
    assert made == {"train": False}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["--valid-subset", "dev,train"],
            r"--valid-subset dev,train: expected other splits than --train-subset train; ",
        ),
        (["--store-ema"], r"--store-ema: not supported, as the counts of batch norm"),
        (
            ["--load-pretrained-encoder-from", "asr.pt"],
            r"--load-pretrained-encoder-from asr\.pt: not supported by --arch "
            r"conformer_joint_ctc, expected --finetune-from-model",
        ),
        (
            ["--encoder-freezing-updates", "100"],
            r"--encoder-freezing-updates 100: not supported by --arch conformer_joint_ctc",
        ),
        (
            ["--decoder-embed-dim", "64"],
            r"--decoder-embed-dim 64: expected --encoder-embed-dim 32",
        ),
        (
            ["--best-checkpoint-metric", "accuracy"],
            r"--best-checkpoint-metric accuracy: not logged by this task and criterion, expected "
            r"one of: auxiliary_loss, .*nll_loss, .*real_loss",
        ),
        (["--best-checkpoint-metric", "ctc_too_short"], r"--best-checkpoint-metric ctc_too_short"),
    ],
)
def test_flags_that_would_be_ignored_or_fail_late_are_refused(data, tmp_path, flags, message):
    with pytest.raises(InputError, match=f"^{message}"):
        run_train(data, tmp_path, *flags)


def test_the_split_to_train_on_may_be_named_without_validation(data, tmp_path):
    run_train(data, tmp_path, *ONE_UPDATE, "--valid-subset", "train", "--disable-validation")


def test_decoder_of_another_dimension_goes_without_auxiliary_head(data, tmp_path):
    flags = ("--arch", "conformer", "--underlying-criterion", "label_smoothed_cross_entropy")
    run_train(data, tmp_path, *ONE_UPDATE, *flags, "--decoder-embed-dim", "64")
    assert (tmp_path / "checkpoint_last.pt").exists()


@pytest.mark.parametrize("p", ["0", "1"])
def test_the_best_metric_of_two_kinds_is_of_either(data, tmp_path, p):
    task = ("--task", "speech_to_text_ctc_asr_st", "--p-sampling-asr", p, *ONE_UPDATE)
    with pytest.raises(
        InputError, match=r"^--best-checkpoint-metric nll_loss: .* nll_loss_asr, nll"
    ):
        run_train(data, tmp_path, *task, "--best-checkpoint-metric", "nll_loss")
    for metric in ("nll_loss_st", "nll_loss_asr"):
        run_train(data, tmp_path / metric, *task, "--best-checkpoint-metric", metric)
        assert (tmp_path / metric / "checkpoint_last.pt").exists()


def test_metrics_of_the_kind_not_trained_are_of_validation():
    task = SpeechToTextASRSTTask.__new__(SpeechToTextASRSTTask)
    names = task.validation_metrics(["loss", "ppl_st", "ctc_too_short_st"])
    assert names == {"loss", "ppl_st", "ppl_asr"}


def test_resampling_a_manifest_of_several_language_pairs_is_refused(folder, tmp_path):
    rows = [
        dataclasses.replace(row, src_lang="en", tgt_lang="it" if number else "en")
        for number, row in enumerate(read_manifest(folder / "train_b.tsv"))
    ]
    write_manifest(folder / "train_b.tsv", rows)
    one = [dataclasses.replace(row, tgt_lang="it") for row in rows]
    write_manifest(folder / "train.tsv", one)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    (folder / "config.yaml").write_text(yaml.safe_dump({**config, "sampling_alpha": 0.5}))
    message = r"^train_b\.tsv: has the language pairs en-en, en-it, expected one .* sampling_alpha"
    with pytest.raises(InputError, match=message):
        run_train(folder, tmp_path / "save", "--train-subset", "train,train_b")
