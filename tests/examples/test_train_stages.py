"""The two stages of training of the prompts' model: its command lines, and a run on tiny data."""

import logging

import pytest
import test_recipes
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq_cli import train
from test_recipes import (
    COMMON,
    TINY,
    expect,
    parsed_average,
    parsed_training,
    run,
    updates,
)

from examples.prompts.train.build import LANGUAGES
from fbk_xattn.checkpoints import load_checkpoint
from fbk_xattn.cli.main import main as fbk_xattn_main

recorded = test_recipes.recorded
SCRIPT = "prompts/train/train.sh"
TINY_DATA = {"TRAIN": "train", "VALID": "dev"}
WAYS = [f"st_{one}_{other}" for one in LANGUAGES for other in LANGUAGES if one != other]
ASR = [f"asr_{lang}" for lang in LANGUAGES]
SIZES = {
    "task": "speech_to_text_ctc_asr_st",
    "arch": "conformer_joint_ctc",
    "encoder_layers": 6,
    "ctc_encoder_layer": 4,
    "decoder_layers": 4,
    "encoder_embed_dim": 256,
    "decoder_embed_dim": 256,
    "share_decoder_input_output_embed": True,
    "bf16": True,
    "max_tokens": 150_000,
    "dropout": 0.2,
    "subword_regularization": 0.2,
}
# In place of the paper's, by stage.
WEIGHTS = {
    "asr": {"ctc_weight": 4.0, "primary_loss_weight": 1.0, "auxiliary_loss_weight": 1.0},
    "model": {"ctc_weight": 3.0, "primary_loss_weight": 3.0, "auxiliary_loss_weight": 2.0},
}
OWN = {"num_workers", "validate_interval", "save_interval_updates", "log_format"}


def test_command_lines(recorded, tmp_path):
    real = [f"train_real_{task}" for task in WAYS + ASR]
    made = [f"train_{part}_{way}" for part in ("telephone", "general") for way in WAYS]
    valid = [f"dev_{task}" for task in ASR + WAYS]
    data = tmp_path / "data"
    data.mkdir()
    for name in real + made + valid:
        (data / f"{name}.tsv").touch()
    out = tmp_path / "out"
    result = run(SCRIPT, data, out, "--patience", "3", path=recorded.path, GPUS="2")
    assert result.returncode == 0, result.stderr
    first, average_first, second, average_second = recorded.lines()
    common = {name: COMMON[name] for name in COMMON.keys() - OWN} | SIZES
    common |= {"num_workers": 12, "distributed_world_size": 2, "keep_interval_updates": 10}
    common |= {"log_format": "json"}
    for line, stage in ((first, "asr"), (second, "model")):
        args = parsed_training(*line)
        expect(args, common | WEIGHTS[stage] | {"save_dir": f"{out}/{stage}", "patience": 3})
        assert args.train_subset.split(",") == real + made
        assert args.valid_subset.split(",") == valid
    args = parsed_training(*first)
    expect(args, {"p_sampling_asr": 1.0, "max_update": 4000, "finetune_from_model": None})
    expect(args, {"lr_scheduler": "inverse_sqrt", "lr": [1.5e-3], "save_interval_updates": 200})
    args = parsed_training(*second)
    expect(args, {"p_sampling_asr": 0.5, "max_update": 8000, "total_num_update": "8000"})
    expect(args, {"finetune_from_model": f"{out}/asr.pt", "lr_scheduler": "polynomial_decay"})
    assert parsed_average(*average_first) == ([f"{out}/asr"], f"{out}/asr.pt", 10)
    assert parsed_average(*average_second) == ([f"{out}/model"], f"{out}/model.pt", 10)


def test_spliced_speech_is_trained_on_where_it_is(recorded, tmp_path):
    real = [f"train_real_{task}" for task in WAYS + ASR]
    made = [f"train_{part}_{way}" for part in ("telephone", "general") for way in WAYS]
    spliced = [f"train_spliced_{task}" for task in ASR]
    data, out = tmp_path / "data", tmp_path / "out"
    data.mkdir()
    out.mkdir()
    for name in [*real, *made, *spliced, *(f"dev_{task}" for task in ASR + WAYS)]:
        (data / f"{name}.tsv").touch()
    # Of a first model that is there the second stage goes on.
    (out / "asr.pt").touch()
    result = run(SCRIPT, data, out, path=recorded.path)
    assert result.returncode == 0, result.stderr
    line, _ = recorded.lines()
    args = parsed_training(*line)
    expect(args, {"save_dir": f"{out}/model", "finetune_from_model": f"{out}/asr.pt"})
    assert args.train_subset.split(",") == real + made + spliced


def test_trains_in_two_stages(data, recorded, tmp_path, caplog):
    variables = {"ASR_UPDATES": "2", "ST_UPDATES": "2", "AVERAGE": "2", **TINY_DATA}
    at = TINY.index("--max-update")
    flags = [*TINY[:at], *TINY[at + 2 :], "--decoder-embed-dim", "32"]
    flags += ["--decoder-ffn-embed-dim", "32", "--conformer-conv-kernel-size", "7"]
    arguments = [SCRIPT, data, tmp_path, *flags]
    result = run(*arguments, path=recorded.path, **variables)
    assert result.returncode == 0, result.stderr
    # The command lines of the script, in this process, which has imported all that they need.
    caplog.set_level(logging.INFO)
    for command, *argv in recorded.lines():
        if command == "fbk-xattn":
            assert fbk_xattn_main(argv) == 0
        else:
            train.main(convert_namespace_to_omegaconf(parsed_training(command, *argv)))
    assert updates(tmp_path / "asr.pt") == updates(tmp_path / "model.pt") == 2
    assert f"loading pretrained model from {tmp_path}/asr.pt" in caplog.text
    weights = [load_checkpoint(tmp_path / name)["model"] for name in ("asr.pt", "model.pt")]
    assert weights[0].keys() == weights[1].keys()
    assert any((weights[0][name] != weights[1][name]).any() for name in weights[0])

    result = run(*arguments, path=recorded.path, **variables)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.count(": done, ") == 2
    assert len(recorded.lines()) == 4


def test_help_says_what_is_given(recorded):
    result = run(SCRIPT, "--help", path=recorded.path)
    assert (result.returncode, result.stderr) == (0, "")
    names = "DATA SAVE_DIR TRAIN VALID ASR_UPDATES ST_UPDATES GPUS AVERAGE WORKERS".split()
    assert [name for name in names if name not in result.stdout] == []
    assert "set -euo" not in result.stdout
    assert not any(line.startswith("#") for line in result.stdout.splitlines())


@pytest.mark.parametrize(
    ("arguments", "variables", "message"),
    [
        ([], {}, "DATA is missing"),
        (["DATA"], {}, "SAVE_DIR is missing"),
        (["DATA", "--cpu"], {}, "SAVE_DIR is missing"),
        (["DATA", "out", "more"], {}, "unexpected argument more"),
        (["/nowhere", "out"], {}, "/nowhere: no such folder"),
        (["DATA", "out"], {}, "train_real_st_en_it.tsv: no such manifest"),
        (["DATA", "out"], {"TRAIN": "train"}, "dev_asr_en.tsv: no such manifest"),
        (["DATA", "out"], TINY_DATA | {"VALID": "x"}, "x.tsv: no such manifest"),
        (["DATA", "out"], TINY_DATA | {"GPUS": "all"}, "GPUS=all: expected a whole number"),
        (["DATA", "out"], TINY_DATA | {"ASR_UPDATES": "0"}, "ASR_UPDATES=0: expected a whole"),
        (["DATA", "out"], TINY_DATA | {"ST_UPDATES": "1e4"}, "ST_UPDATES=1e4: expected a whole"),
        (["DATA", "out"], TINY_DATA | {"AVERAGE": "0"}, "AVERAGE=0: expected a whole number"),
        (["DATA", "out"], TINY_DATA | {"WORKERS": "-1"}, "WORKERS=-1: expected a whole number"),
    ],
)
def test_wrong_arguments_are_one_line(data, recorded, arguments, variables, message):
    arguments = [data if argument == "DATA" else argument for argument in arguments]
    result = run(SCRIPT, *arguments, path=recorded.path, **variables)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("error: ")
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
