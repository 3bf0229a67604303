"""What ``fairseq-train`` is given: utterances that are too long, checkpoints, losses."""

from __future__ import annotations

import dataclasses
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from fairseq import options
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq.trainer import Trainer
from fairseq_cli import train
from fairseq_runs import CRITERION_FLAGS, MODEL_FLAGS, run_train, train_argv
from golden import published

from fbk_xattn.averaging import average_checkpoints
from fbk_xattn.checkpoints import load_checkpoint
from fbk_xattn.data.dataset import SpeechToTextCTCDataset
from fbk_xattn.data.manifest import read_manifest, write_manifest
from fbk_xattn.errors import InputError

ONE_UPDATE = ("--max-update", "1", "--max-tokens", "8000", "--num-workers", "0")
UNTOUCHED = ("--lr", "1e-12", "--lr-scheduler", "fixed", "--warmup-updates", "0")


@pytest.fixture
def folder(data, tmp_path):
    """A copy of the data folder."""
    copy = tmp_path / "data"
    shutil.copytree(data, copy)
    return copy


@pytest.fixture
def loaded(monkeypatch):
    """Ids of the utterances that are loaded, by split."""
    ids: dict[str, list[str]] = {}
    load = SpeechToTextCTCDataset.__getitem__

    def noted(self, index):
        ids.setdefault(self.split, []).append(self.ids[index])
        return load(self, index)

    monkeypatch.setattr(SpeechToTextCTCDataset, "__getitem__", noted)
    return ids


def set_rows(folder, split, **columns):
    """Change columns of a manifest: ``n_frames={row: value}``."""
    rows = read_manifest(folder / f"{split}.tsv")
    for column, values in columns.items():
        for number, value in values.items():
            rows[number] = dataclasses.replace(rows[number], **{column: value})
    write_manifest(folder / f"{split}.tsv", rows)


def left_out(caplog):
    return [message for message in caplog.messages if "left out" in message]


def test_utterances_over_30_s_are_left_out_of_training_and_counted_once(
    folder, tmp_path, caplog, loaded
):
    set_rows(folder, "train", n_frames={2: 3001, 5: 3120, 7: 3000})
    caplog.set_level(logging.INFO)
    run_train(folder, tmp_path / "save", "--max-tokens", "8000", "--max-epoch", "3")
    assert left_out(caplog) == [
        "train: 2 of 10 utterances left out, longer than 3000 frames (30 s, --max-train-frames); "
        "first: train/2 (3001 frames), train/5 (3120 frames)"
    ]
    assert set(loaded["train"]) == {f"train/{i}" for i in range(10)} - {"train/2", "train/5"}


@pytest.mark.parametrize(
    ("flags", "lines"),
    [
        (["--max-train-frames", "9000", "--max-tokens", "9000"], []),
        (
            ["--max-train-frames", "4000", "--max-source-positions", "3100"],
            [
                "train: 4 of 10 utterances left out, longer than 3100 frames (31 s, "
                "--max-source-positions); first: train/2 (3120 frames), train/5 (3120 frames), "
                "train/6 (3120 frames), ..."
            ],
        ),
        (
            ["--max-train-frames", "4000", "--max-tokens", "3050"],
            [
                "train: 4 of 10 utterances left out, longer than 3050 frames (30.5 s, "
                "--max-tokens or the model); first: train/2 (3120 frames), train/5 (3120 frames), "
                "train/6 (3120 frames), ..."
            ],
        ),
    ],
)
def test_the_least_limit_counts_and_its_flag_is_named(folder, tmp_path, caplog, flags, lines):
    set_rows(folder, "train", n_frames=dict.fromkeys((2, 5, 6, 8), 3120))
    caplog.set_level(logging.INFO)
    run_train(folder, tmp_path / "save", *ONE_UPDATE, *flags)
    assert left_out(caplog) == lines


def test_target_texts_that_are_too_long_are_counted_too(folder, tmp_path, caplog, loaded):
    set_rows(folder, "train", n_frames={3: 5000}, tgt_text={3: "ciao " * 50, 4: "ciao " * 50})
    caplog.set_level(logging.INFO)
    flags = ("--max-tokens", "8000", "--max-epoch", "1", "--max-target-positions", "40")
    run_train(folder, tmp_path / "save", *flags)
    frames, tokens = left_out(caplog)
    assert frames.startswith("train: 1 of 10 utterances left out, longer than 3000 frames (30 s, ")
    assert tokens.startswith(
        "train: 1 of 10 utterances left out, longer than 40 target tokens "
        "(--max-target-positions); first: train/4 ("
    )
    assert set(loaded["train"]) == {f"train/{i}" for i in range(10)} - {"train/3", "train/4"}


@pytest.fixture
def two_corpora(folder):
    """Training data in two manifests, with one language pair each."""
    rows = [
        dataclasses.replace(row, src_lang="en", tgt_lang="it")
        for row in read_manifest(folder / "train.tsv")
    ]
    write_manifest(folder / "train_a.tsv", rows[:7])
    write_manifest(
        folder / "train_b.tsv", [dataclasses.replace(row, tgt_lang="en") for row in rows[7:]]
    )
    set_rows(folder, "train_a", n_frames={1: 3500})
    set_rows(folder, "train_b", n_frames={0: 4500, 2: 3001})
    return folder


def test_several_corpora_are_one_split(two_corpora, tmp_path, caplog, loaded):
    caplog.set_level(logging.INFO)
    flags = ("--train-subset", "train_a,train_b", "--max-tokens", "8000", "--max-epoch", "2")
    run_train(two_corpora, tmp_path / "save", *flags)
    assert left_out(caplog) == [
        "train_a,train_b: 3 of 10 utterances left out, longer than 3000 frames (30 s, "
        "--max-train-frames); first: train/1 (3500 frames), train/7 (4500 frames), "
        "train/9 (3001 frames)"
    ]
    assert not {"train/1", "train/7", "train/9"} & set(loaded["train_a,train_b"])


def test_of_resampled_corpora_each_has_its_line(two_corpora, tmp_path, caplog, loaded):
    config = yaml.safe_load((two_corpora / "config.yaml").read_text())
    (two_corpora / "config.yaml").write_text(yaml.safe_dump({**config, "sampling_alpha": 0.5}))
    caplog.set_level(logging.INFO)
    flags = ("--train-subset", "train_a,train_b", "--max-tokens", "8000", "--max-epoch", "6")
    run_train(two_corpora, tmp_path / "save", *flags, "--max-update", "100")
    assert left_out(caplog) == [
        "train_a: 1 of 7 utterances left out, longer than 3000 frames (30 s, --max-train-frames); "
        "first: train/1 (3500 frames)",
        "train_b: 2 of 3 utterances left out, longer than 3000 frames (30 s, --max-train-frames); "
        "first: train/7 (4500 frames), train/9 (3001 frames)",
    ]
    # Six epochs of draws reach all that may be drawn, the longest included.
    assert set(loaded["train_a"]) == {f"train/{i}" for i in (0, 2, 3, 4, 5, 6)}
    assert set(loaded["train_b"]) == {"train/8"}


def test_a_split_of_which_nothing_is_left_is_refused(folder, tmp_path):
    set_rows(folder, "train", n_frames=dict.fromkeys(range(10), 3001))
    with pytest.raises(InputError, match=r"^train: 10 of 10 utterances left out.*none is left"):
        run_train(folder, tmp_path / "save", *ONE_UPDATE)


@pytest.mark.parametrize(
    ("columns", "flags", "message"),
    [
        (
            {"n_frames": {1: 6001}},
            [],
            r"dev, utterance 'dev/1': 6001 frames, expected at most 6000 "
            r"\(--max-source-positions\)",
        ),
        (
            {"n_frames": {1: 5000}},
            ["--max-tokens-valid", "4000"],
            r"dev, utterance 'dev/1': 5000 frames, expected at most 4000 "
            r"\(--max-tokens, --max-tokens-valid or the model\)",
        ),
        (
            {"tgt_text": {1: "ciao " * 60}},
            ["--max-target-positions", "50"],
            r"dev, utterance 'dev/1': \d+ target tokens, expected at most 50 "
            r"\(--max-target-positions\)",
        ),
    ],
)
def test_an_utterance_too_long_for_validation_is_named_or_left_out_and_counted(
    folder, tmp_path, caplog, loaded, columns, flags, message
):
    set_rows(folder, "dev", **columns)
    skip = "--skip-invalid-size-inputs-valid-test"
    with pytest.raises(InputError, match=f"^{message}; {skip} leaves such utterances out$"):
        run_train(folder, tmp_path / "one", *ONE_UPDATE, *flags)
    caplog.set_level(logging.INFO)
    run_train(folder, tmp_path / "two", *ONE_UPDATE, *flags, skip)
    (line,) = left_out(caplog)
    assert line.startswith("dev: 1 of 2 utterances left out, longer than ")
    assert set(loaded["dev"]) == {"dev/0"}


def test_validation_takes_utterances_over_30_s(folder, tmp_path, caplog, loaded):
    set_rows(folder, "dev", n_frames={1: 3500})
    caplog.set_level(logging.INFO)
    run_train(folder, tmp_path / "save", *ONE_UPDATE)
    assert not left_out(caplog)
    assert "dev/1" in loaded["dev"]


def test_a_limit_below_one_frame_is_refused(data, tmp_path):
    with pytest.raises(InputError, match=r"^--max-train-frames 0: expected at least 1$"):
        run_train(data, tmp_path, "--max-train-frames", "0")


def run_train_with(data, save_dir, model_flags, criterion_flags, *flags):
    """Run ``fairseq-train`` with a model or criterion that does not know the usual flags."""
    argv = train_argv(data, save_dir, *flags)
    for own, others in ((MODEL_FLAGS, model_flags), (CRITERION_FLAGS, criterion_flags)):
        start = argv.index(own[0])
        argv[start : start + len(own)] = others
    args = options.parse_args_and_arch(options.get_training_parser(), input_args=argv)
    train.main(convert_namespace_to_omegaconf(args))


def test_a_manifest_to_train_on_that_is_not_named_so_is_refused(two_corpora, tmp_path):
    shutil.copy(two_corpora / "train_a.tsv", two_corpora / "other.tsv")
    with pytest.raises(InputError, match=r"^--train-subset other: expected .* begins with train"):
        run_train(two_corpora, tmp_path / "save", "--train-subset", "train_b,other")


class RunsCode:
    """What a hostile checkpoint would hold."""

    def __reduce__(self):
        return os.system, ("touch executed",)


@pytest.fixture
def spoiled(checkpoint, tmp_path, monkeypatch):
    """Files in the current folder that are no checkpoints to start from, by what is wrong."""
    monkeypatch.chdir(tmp_path)
    content = checkpoint.read_bytes()
    Path("damaged.pt").write_bytes(content[: len(content) // 2])
    Path("empty.pt").touch()
    state = load_checkpoint(checkpoint)
    torch.save({**state, "extra_state": RunsCode()}, "hostile.pt")
    torch.save({"model": state["model"]}, "weights.pt")
    torch.save({"args": None}, "other.pt")


@pytest.mark.parametrize("flag", ["--restore-file", "--finetune-from-model"])
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing.pt", "missing.pt: no such checkpoint"),
        ("damaged.pt", "damaged.pt: unreadable checkpoint"),
        ("empty.pt", "empty.pt: unreadable checkpoint"),
        ("hostile.pt", r"hostile.pt: unreadable checkpoint \(it holds .*system, expected"),
        ("weights.pt", "weights.pt: not a checkpoint of training, expected an entry 'extra_state'"),
        ("other.pt", "other.pt: not a checkpoint of fairseq, expected an entry 'model'"),
    ],
)
@pytest.mark.usefixtures("spoiled")
def test_a_checkpoint_that_training_cannot_start_from_is_named(data, flag, name, message):
    with pytest.raises(InputError, match=f"^{flag} {message}"):
        run_train(data, "save", flag, name)
    assert not Path("executed").exists()


@pytest.mark.usefixtures("spoiled")
def test_a_damaged_last_checkpoint_is_named(data):
    Path("save").mkdir()
    shutil.copy("damaged.pt", "save/checkpoint_last.pt")
    with pytest.raises(InputError, match=r"^save/checkpoint_last.pt: unreadable checkpoint"):
        run_train(data, "save")


def test_what_is_in_the_save_dir_goes_before_the_model_to_finetune(
    data, checkpoint, tmp_path, caplog
):
    shutil.copy(checkpoint, tmp_path / "checkpoint_last.pt")
    caplog.set_level(logging.INFO)
    run_train(data, tmp_path, "--finetune-from-model", "gone.pt", "--max-update", "7")
    last = load_checkpoint(tmp_path / "checkpoint_last.pt")
    assert last["optimizer_history"][-1]["num_updates"] == 7
    (line,) = [m for m in caplog.messages if m.startswith("going on from")]
    assert line.endswith("checkpoint_last.pt, not from --finetune-from-model gone.pt")


def test_training_is_restored_from_a_file(data, checkpoint, tmp_path):
    run_train(data, tmp_path, "--restore-file", str(checkpoint), "--max-update", "7")
    last = load_checkpoint(tmp_path / "checkpoint_last.pt")
    assert last["optimizer_history"][-1]["num_updates"] == 7


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--restore-file", "x.pt"], "--finetune-from-model with --restore-file: expected one of"),
        (["--reset-optimizer"], "--finetune-from-model with --reset-optimizer: expected one of"),
    ],
)
def test_flags_that_contradict_each_other_are_refused(data, checkpoint, tmp_path, flags, message):
    with pytest.raises(InputError, match=f"^{message}"):
        run_train(data, tmp_path, "--finetune-from-model", str(checkpoint), *flags)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["--encoder-embed-dim", "48"],
            r"encoder\.subsample\..* is \(64, .*\), expected \(96, .*\); is this its data folder",
        ),
        (["--encoder-layers", "4"], r"has no weight encoder\.conformer_layers\.3\.\S*; is this"),
        (
            ["--arch", "conformer", "--underlying-criterion", "label_smoothed_cross_entropy"],
            r"has a weight auxiliary_decoder\.\S*, expected none; is this its --arch",
        ),
    ],
)
def test_a_checkpoint_of_another_model_is_named(data, checkpoint, tmp_path, flags, message):
    with pytest.raises(
        InputError, match=rf"^--finetune-from-model \S+checkpoint_last.pt: {message}"
    ):
        run_train(data, tmp_path, "--finetune-from-model", str(checkpoint), *flags)


def test_a_checkpoint_of_another_vocabulary_is_named(folder, checkpoint, tmp_path):
    with (folder / "dict.txt").open("a") as vocabulary:
        vocabulary.write("extra 1\n")
    message = r"^--restore-file \S+checkpoint_last.pt: \S+ is .*, expected .*\(vocabulary\)"
    with pytest.raises(InputError, match=message):
        run_train(folder, tmp_path / "save", "--restore-file", str(checkpoint))


def test_the_published_checkpoint_can_be_trained_on(tmp_path):
    folder = tmp_path / "data"
    shutil.copytree(published.FOLDER / "data", folder)
    rows = read_manifest(folder / "test.tsv")
    write_manifest(folder / "train.tsv", rows[:4])
    write_manifest(folder / "dev.tsv", rows)
    run_train(
        folder, tmp_path / "save", "--finetune-from-model", str(published.CHECKPOINT),
        "--encoder-layers", "4", "--decoder-layers", "3", "--encoder-embed-dim", "64",
        "--decoder-ffn-embed-dim", "256", "--conv-channels", "128",
        "--conformer-conv-kernel-size", "31", "--max-tokens", "2000", "--max-update", "2",
        *UNTOUCHED,
    )  # fmt: skip
    trained = load_checkpoint(tmp_path / "save" / "checkpoint_last.pt")
    assert trained["optimizer_history"][-1]["num_updates"] == 2
    # The published loss of the six, in bits a token, but for the batch statistics (see below).
    recorded = published.values("losses_joint")["sentence_avg=False"]["logging"]
    loss = recorded["loss"] / recorded["sample_size"] / np.log(2)
    assert trained["extra_state"]["val_loss"] == pytest.approx(loss, rel=0.02)
    first = load_checkpoint(published.CHECKPOINT)["model"]
    # Statistics of the batches move whatever the learning rate is; two are of other versions.
    others = ("running_mean", "running_var", "num_batches_tracked", ".version", "_float_tensor")
    compared = [name for name in first if not name.endswith(others)]
    assert len(compared) == sum(not name.endswith(others) for name in trained["model"]) > 200
    for name in compared:
        torch.testing.assert_close(trained["model"][name], first[name], rtol=0, atol=1e-9)


def test_an_average_can_be_trained_on(data, checkpoint, tmp_path):
    average_checkpoints([checkpoint, checkpoint], tmp_path / "model.pt")
    flags = ("--finetune-from-model", str(tmp_path / "model.pt"), "--max-update", "1")
    run_train(data, tmp_path / "save", *flags)
    assert (tmp_path / "save" / "checkpoint_last.pt").exists()


# --ctc-encoder-layer is a flag of the criterion that reads the layer.
SIZES = " ".join(MODEL_FLAGS[2:]).replace("--ctc-encoder-layer 2", "").split()
CONFORMER = ["--arch", "conformer", *SIZES]
WITH_AUXILIARY_HEAD = ["--arch", "conformer_joint_ctc", *SIZES]
IGNORE_TAG = ["--ignore-prefix-size", "1"]
CROSS_ENTROPY = ["--criterion", "label_smoothed_cross_entropy", *IGNORE_TAG]
CTC_AND_CROSS_ENTROPY = [
    *("--criterion", "ctc_multi_loss", "--ctc-encoder-layer", "2"),
    *("--underlying-criterion", "label_smoothed_cross_entropy", *IGNORE_TAG),
]


@pytest.mark.parametrize(
    ("model", "criterion", "message"),
    [
        (
            CONFORMER,
            [*CRITERION_FLAGS, "--ctc-encoder-layer", "2"],
            "--underlying-criterion joint_cross_entropy_ctc with --arch conformer: the model has "
            "no CTC over target texts, expected conformer_joint_ctc ",
        ),
        (
            CONFORMER,
            ["--criterion", "joint_cross_entropy_ctc", *IGNORE_TAG],
            "--criterion joint_cross_entropy_ctc with --arch conformer: the model has no CTC over "
            "target texts, expected conformer_joint_ctc ",
        ),
        (
            ["--arch", "s2t_transformer_xs"],
            CTC_AND_CROSS_ENTROPY,
            "--criterion ctc_multi_loss with --arch s2t_transformer_xs: the model has no CTC over "
            "transcripts, expected conformer, conformer_joint_ctc ",
        ),
        (
            CONFORMER,
            ["--criterion", "cross_entropy"],
            "--criterion cross_entropy: has no --ignore-prefix-size, expected one that has",
        ),
        (
            CONFORMER,
            [*CTC_AND_CROSS_ENTROPY[:-1], "0"],
            "--ignore-prefix-size 0: expected 1, as the data config prepends language tags",
        ),
    ],
)
def test_a_criterion_for_another_model_or_data_is_refused(
    data, tmp_path, model, criterion, message
):
    with pytest.raises(InputError, match=f"^{message}"):
        run_train_with(data, tmp_path, model, criterion)


def test_without_language_tags_no_prefix_is_ignored(folder, tmp_path):
    config = yaml.safe_load((folder / "config.yaml").read_text())
    (folder / "config.yaml").write_text(yaml.safe_dump({**config, "prepend_tgt_lang_tag": False}))
    criterion = [*CROSS_ENTROPY[:-1], "0"]
    run_train_with(folder, tmp_path / "save", CONFORMER, criterion, *ONE_UPDATE)
    assert (tmp_path / "save" / "checkpoint_last.pt").exists()


def test_an_optimizer_for_another_criterion_is_named_or_reset(data, checkpoint, tmp_path):
    flags = ("--restore-file", str(checkpoint), "--max-update", "1")
    message = (
        r"--restore-file \S+: its optimizer is for --criterion ctc_multi_loss "
        r"--underlying-criterion joint_cross_entropy_ctc, expected --criterion ctc_multi_loss "
        r"--underlying-criterion label_smoothed_cross_entropy; --reset-optimizer"
    )
    model, criterion = WITH_AUXILIARY_HEAD, CTC_AND_CROSS_ENTROPY
    with pytest.raises(InputError, match=f"^{message}"):
        run_train_with(data, tmp_path, model, criterion, *flags)
    run_train_with(data, tmp_path, model, criterion, *flags, "--reset-optimizer")
    assert (tmp_path / "checkpoint_last.pt").exists()


@pytest.mark.parametrize("criterion", [CROSS_ENTROPY, CTC_AND_CROSS_ENTROPY])
def test_an_auxiliary_head_without_a_loss_stays_as_it_is(data, tmp_path, monkeypatch, criterion):
    without_gradient, first = set(), {}
    clip = Trainer.clip_grad_norm

    def noted(self, *args):
        for name, parameter in self.model.named_parameters():
            first.setdefault(name, parameter.detach().clone())
            if parameter.requires_grad and parameter.grad is None:
                without_gradient.add(name)
        return clip(self, *args)

    monkeypatch.setattr(Trainer, "clip_grad_norm", noted)
    flags = ("--max-update", "3", "--weight-decay", "0.5")
    run_train_with(data, tmp_path, WITH_AUXILIARY_HEAD, criterion, *flags)
    # In several processes, torch would stop at a parameter that waits for its gradient.
    assert not without_gradient
    last = load_checkpoint(tmp_path / "checkpoint_last.pt")["model"]
    changed = {name for name, weight in first.items() if not torch.equal(last[name], weight)}
    auxiliary = {name for name in first if name.startswith("auxiliary_decoder.")}
    assert auxiliary
    assert changed == set(first) - auxiliary


def test_wrong_input_gives_one_line_and_exit_code_1(data, tmp_path):
    process = subprocess.run(
        [
            *(sys.executable, "-m", "fairseq_cli.train"),
            *train_argv(data, tmp_path, "--restore-file", "missing.pt"),
        ],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert process.returncode == 1
    assert process.stderr.splitlines()[-1] == (
        "fbk_xattn: error: --restore-file missing.pt: no such checkpoint"
    )
    assert "Traceback" not in process.stdout + process.stderr
