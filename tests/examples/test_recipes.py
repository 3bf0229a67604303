"""The recipes of the paper's models: their command lines, and a run of each on the tests' data."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from fairseq import options
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from golden import published

import fbk_xattn.plugin  # noqa: F401
from fbk_xattn.checkpoints import load_checkpoint
from fbk_xattn.cli.main import build_parser
from fbk_xattn.data.manifest import read_manifest
from fbk_xattn.data.prepare import write_config
from fbk_xattn.store import AttributionStore

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
MODULES = {
    "fairseq-train": "fairseq_cli.train",
    "fairseq-generate": "fairseq_cli.generate",
    "fbk-xattn": "fbk_xattn.cli.main",
}
# Two updates of a model that a CPU trains in no time; the recipe's flags come before these.
TINY = shlex.split(
    "--cpu --distributed-world-size 1 --max-update 2 --save-interval-updates 1 --update-freq 1 "
    "--max-tokens 300 --num-workers 0 --encoder-layers 2 --decoder-layers 1 --ctc-encoder-layer 1 "
    "--encoder-embed-dim 32 --encoder-ffn-embed-dim 32 --encoder-attention-heads 2 "
    "--decoder-attention-heads 2 --conv-channels 16"
)
# The subsets of the tests' data, for every recipe.
SUBSETS = {"TRAIN_ASR": "train", "VALID_ASR": "dev", "TRAIN_ST": "train", "VALID_ST": "dev"}


def run(script, *arguments, path, **environment):
    """Run a script of ``examples`` with the commands of the folder ``path``."""
    return subprocess.run(
        [shutil.which("bash"), EXAMPLES / script, *map(str, arguments)],
        env={
            **os.environ,
            "PATH": f"{path}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
            **environment,
        },
        capture_output=True,
        text=True,
        check=False,
    )


def write_command(folder, name, script):
    """Write a command for the ``PATH``."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


@pytest.fixture
def commands(tmp_path):
    """The commands of the recipes, whether fbk_xattn is installed or not."""
    folder = tmp_path / "commands"
    for name, module in MODULES.items():
        write_command(folder, name, f'exec "{sys.executable}" -m {module} "$@"')
    return folder


@pytest.fixture
def recorded(tmp_path):
    """Commands that do nothing but write down their command lines, and what reads those."""
    folder, log = tmp_path / "recorded", tmp_path / "log"
    for name in MODULES:
        write_command(folder, name, f'printf \'%s\\0\' {name} "$@" end >> "{log}"')

    def lines():
        *calls, _ = log.read_text().split("end\0")
        return [call.split("\0")[:-1] for call in calls]

    return SimpleNamespace(path=folder, lines=lines)


def parsed_training(command, *argv):
    """Parse a recorded command line as fairseq-train does."""
    assert command == "fairseq-train"
    args = options.parse_args_and_arch(options.get_training_parser(), input_args=list(argv))
    convert_namespace_to_omegaconf(args)
    return args


def parsed_average(*argv):
    """Parse a recorded command line as ``fbk-xattn average-checkpoints`` does."""
    assert argv[0] == "fbk-xattn"
    args = build_parser().parse_args(argv[1:])
    return [str(path) for path in args.inputs], str(args.output), args.num_update_checkpoints


COMMON = {
    "criterion": "ctc_multi_loss",
    "underlying_criterion": "joint_cross_entropy_ctc",
    "label_smoothing": 0.1,
    "ctc_weight": 1.0,
    "primary_loss_weight": 5.0,
    "auxiliary_loss_weight": 2.0,
    "ignore_prefix_size": 1,
    "dropout": 0.1,
    "conformer_feedforward_dropout": 0.1,
    "conformer_attention_dropout": 0.1,
    "conformer_conv_dropout": 0.1,
    "conformer_conv_kernel_size": 31,
    "batch_unsafe_relative_shift": False,
    "optimizer": "adamw",
    "adam_betas": "(0.9, 0.98)",
    "weight_decay": 0.001,
    "clip_norm": 10.0,
    "seed": 1,
    "skip_invalid_size_inputs_valid_test": True,
    "max_source_positions": 3000,
    "max_target_positions": 512,
    "num_workers": 1,
    "log_format": "simple",
    "validate_interval": 1000,
    "save_interval_updates": 1000,
}
NOAM = {"lr": [2e-3], "lr_scheduler": "inverse_sqrt", "warmup_updates": 25_000}
PIECEWISE = {
    "lr": [2e-4],
    "lr_scheduler": "piecewise_warmup",
    "warmup_updates": 50_000,
    "intermediate_lr": 2e-5,
    "intermediate_warmup_updates": 25_000,
}


def sizes(encoder, decoder, dim, heads, ctc):
    return {
        "encoder_layers": encoder,
        "decoder_layers": decoder,
        "encoder_embed_dim": dim,
        "decoder_embed_dim": dim,
        "encoder_ffn_embed_dim": 4 * dim,
        "decoder_ffn_embed_dim": 4 * dim,
        "encoder_attention_heads": heads,
        "decoder_attention_heads": heads,
        "ctc_encoder_layer": ctc,
    }


SIZES = {
    "base": sizes(12, 6, 512, 8, ctc=8),
    "small": sizes(12, 6, 1024, 16, ctc=8),
    "large": sizes(24, 12, 1024, 16, ctc=16),
}


def expect(args, values):
    assert {name: getattr(args, name) for name in values} == values


def test_base_command_lines(data, recorded):
    result = run("base/train.sh", data, "out", path=recorded.path)
    assert result.returncode == 0, result.stderr
    train, average = recorded.lines()
    args = parsed_training(*train)
    expect(args, COMMON | SIZES["base"] | NOAM)
    expect(args, {"task": "speech_to_text_ctc", "arch": "conformer_joint_ctc_base"})
    expect(args, {"data": str(data), "train_subset": "train", "valid_subset": "dev"})
    expect(args, {"save_dir": "out/model", "finetune_from_model": None})
    expect(args, {"max_tokens": 40_000, "update_freq": [2], "distributed_world_size": 4})
    expect(args, {"keep_interval_updates": 7, "no_epoch_checkpoints": True})
    assert parsed_average(*average) == (["out/model"], "out/model.pt", 7)


@pytest.mark.parametrize(
    ("name", "asr", "st"),
    [
        (
            "small",
            NOAM | {"max_tokens": 10_000, "update_freq": [2]},
            {"lr": [1e-4], "max_tokens": 10_000, "update_freq": [2]},
        ),
        (
            "large",
            PIECEWISE | {"max_tokens": 5500, "update_freq": [5]},
            {"lr": [1e-5], "max_tokens": 4500, "update_freq": [6]},
        ),
    ],
)
def test_two_stage_command_lines(data, recorded, name, asr, st):
    result = run(f"{name}/train.sh", data, "out", path=recorded.path, **SUBSETS)
    assert result.returncode == 0, result.stderr
    first, average_first, second, average_second = recorded.lines()
    common = COMMON | SIZES[name] | {"max_update": 1_000_000, "distributed_world_size": 16}
    common |= {"keep_interval_updates": 25, "arch": f"conformer_joint_ctc_{name}"}
    args = parsed_training(*first)
    expect(args, common | asr)
    expect(args, {"task": "speech_to_text_ctc", "save_dir": "out/asr"})
    expect(args, {"finetune_from_model": None})
    assert parsed_average(*average_first) == (["out/asr"], "out/asr.pt", 25)
    args = parsed_training(*second)
    expect(args, common | st | {"lr_scheduler": "fixed", "p_sampling_asr": 0.5})
    expect(args, {"task": "speech_to_text_ctc_asr_st", "save_dir": "out/model"})
    expect(args, {"finetune_from_model": "out/asr.pt"})
    assert parsed_average(*average_second) == (["out/model"], "out/model.pt", 25)


def test_the_batch_of_an_update_is_the_same_on_fewer_gpus(data, recorded):
    for gpus in (4, 1):
        run("large/train.sh", data, "out", path=recorded.path, **SUBSETS, GPUS=str(gpus))
    trainings = [line for line in recorded.lines() if line[0] == "fairseq-train"]
    batches = []
    for line in trainings:
        args = parsed_training(*line)
        batches.append(args.max_tokens * args.update_freq[0] * args.distributed_world_size)
    assert batches == 2 * [5500 * 80, 4500 * 96]


def test_variables_and_flags_of_the_user_win(recorded, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    for name in ("one", "two", "dev"):
        (data / f"{name}.tsv").touch()
    variables = {"TRAIN": "one,two", "AVERAGE": "3", "LAUNCH": "env MARK=launched"}
    write_command(recorded.path, "fairseq-train", f'echo $MARK "$@" > "{tmp_path}/launched"')
    flags = ["--lr", "1e-3", "--amp", "--distributed-port", "61024"]
    result = run("base/train.sh", data, "out", *flags, path=recorded.path, **variables)
    assert result.returncode == 0, result.stderr
    mark, *argv = (tmp_path / "launched").read_text().replace("(0.9, 0.98)", "(0.9,0.98)").split()
    assert mark == "launched"
    args = parsed_training("fairseq-train", *argv)
    expect(args, {"lr": [1e-3], "amp": True, "distributed_port": 61024})
    expect(args, {"train_subset": "one,two", "keep_interval_updates": 3})
    assert parsed_average(*recorded.lines()[0])[2] == 3


def test_fama_command_lines(recorded):
    data = published.FOLDER / "data"
    result = run("fama/generate.sh", data, "test", "fama.pt", "out", path=recorded.path)
    assert result.returncode == 0, result.stderr
    generate, correlate = recorded.lines()
    assert correlate == ["fbk-xattn", "correlate", "out"]
    assert generate[0] == "fairseq-generate"
    args = options.parse_args_and_arch(options.get_generation_parser(), input_args=generate[1:])
    expect(args, {"config_yaml": "config.yaml", "gen_subset": "test", "path": "fama.pt"})
    expect(args, {"beam": 5, "prefix_size": 1, "no_repeat_ngram_size": 5, "unkpen": 10_000})
    expect(args, {"max_source_positions": 12_000, "max_target_positions": 4000})
    expect(args, {"task": "speech_to_text_ctc", "criterion": "ctc_multi_loss"})
    expect(args, {"underlying_criterion": "label_smoothed_cross_entropy", "max_tokens": 40_000})
    expect(args, {"attribution_dir": "out", "save_cross_attention": True, "num_masks": 20_000})
    expect(args, {"explain": ["input", "encoder"], "scoring": "sacrebleu"})
    overrides = convert_namespace_to_omegaconf(args).common_eval.model_overrides
    assert yaml.safe_load(overrides.replace("':", "': ")) == {
        "max_source_positions": 12_000,
        "max_target_positions": 4000,
        "batch_unsafe_relative_shift": False,
    }


def test_base_trains_and_averages(data, commands, tmp_path):
    result = run("base/train.sh", data, tmp_path, *TINY, path=commands, AVERAGE="2", GPUS="1")
    assert result.returncode == 0, result.stderr
    assert updates(tmp_path / "model.pt") == 2


def test_large_trains_in_two_stages(data, commands, tmp_path):
    result = run(
        "large/train.sh", data, tmp_path, *TINY, path=commands, AVERAGE="2", GPUS="1", **SUBSETS
    )
    assert result.returncode == 0, result.stderr
    assert updates(tmp_path / "asr.pt") == updates(tmp_path / "model.pt") == 2
    assert f"loading pretrained model from {tmp_path}/asr.pt" in result.stdout


def test_small_goes_on_where_it_was_interrupted(data, commands, tmp_path):
    arguments = ["small/train.sh", data, tmp_path, *TINY]
    environment = {"path": commands, "AVERAGE": "2", "GPUS": "1", **SUBSETS}
    # As if the second stage were killed after its first update.
    real = commands / "fairseq-train"
    script = real.read_text()
    write_command(
        commands,
        "fairseq-train",
        f'case "$*" in */model\\ *) "{sys.executable}" -m fairseq_cli.train "$@" --max-update 1\n'
        "exit 143 ;; esac\n" + script.partition("\n")[2],
    )
    result = run(*arguments, **environment)
    assert result.returncode == 143
    assert (tmp_path / "asr.pt").is_file()
    assert not (tmp_path / "model.pt").exists()
    stage_1 = (tmp_path / "asr.pt").stat()

    real.write_text(script)
    result = run(*arguments, **environment)
    assert result.returncode == 0, result.stderr
    assert f"== asr: done, {tmp_path}/asr.pt" in result.stdout
    assert (tmp_path / "asr.pt").stat() == stage_1
    assert f"Loaded checkpoint {tmp_path}/model/checkpoint_last.pt" in result.stdout
    assert "loading pretrained model" not in result.stdout
    assert updates(tmp_path / "model.pt") == 2

    result = run(*arguments, **environment)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.count(": done, ") == 2


def updates(path):
    """Return the number of updates of the training that a checkpoint comes from."""
    return load_checkpoint(path)["optimizer_history"][-1]["num_updates"]


def test_fama_decodes_explains_and_correlates(commands, tmp_path):
    result = run(
        "fama/generate.sh", published.FOLDER / "data", "test", published.CHECKPOINT,
        tmp_path / "out", "--cpu", "--num-workers", "0", "--num-masks", "6", path=commands,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    # The published system's hypotheses, whose search had these settings.
    best = published.values("hyps_joint")["batch"]
    ids = [row.id for row in read_manifest(published.FOLDER / "data" / "test.tsv")]
    with AttributionStore.open(tmp_path / "out") as store:
        assert {a.id: a.token_ids.tolist() for a in store} == {
            ids[int(number)]: hypothesis["tokens"] for number, hypothesis in best.items()
        }
        assert all(a.input_saliency is not None for a in store)
        assert all(a.encoder_saliency is not None for a in store)
    assert len(re.findall(r"^avg ", result.stdout, re.MULTILINE)) == 2  # of the two tables


@pytest.mark.parametrize(
    ("script", "arguments", "environment", "message"),
    [
        ("base/train.sh", [], {}, "DATA is missing"),
        ("small/train.sh", ["DATA"], {}, "SAVE_DIR is missing"),
        ("large/train.sh", ["DATA", "--cpu"], {}, "SAVE_DIR is missing"),
        ("base/train.sh", ["DATA", "out", "train"], {}, "unexpected argument train"),
        ("base/train.sh", ["DATA", "out", "--save-dir", "x"], {}, "unexpected flag --save-dir"),
        ("small/train.sh", ["DATA", "out", "--save-dir=x"], {}, "unexpected flag --save-dir=x"),
        ("base/train.sh", ["/nowhere", "out"], {}, "/nowhere: no such folder"),
        ("base/train.sh", ["DATA", "out"], {"TRAIN": "train,more"}, "more.tsv: no such manifest"),
        ("small/train.sh", ["DATA", "out"], {}, "train_asr.tsv: no such manifest"),
        ("large/train.sh", ["DATA", "out"], {**SUBSETS, "VALID_ST": "x"}, "x.tsv: no such"),
        ("small/train.sh", ["DATA", "out"], {**SUBSETS, "GPUS": "5"}, "GPUS=5: expected a divisor"),
        ("large/train.sh", ["DATA", "out"], {**SUBSETS, "GPUS": "10"}, "GPUS=10: expected"),
        ("base/train.sh", ["DATA", "out"], {"GPUS": "all"}, "GPUS=all: expected a whole number"),
        ("base/train.sh", ["DATA", "out"], {"AVERAGE": "0"}, "AVERAGE=0: expected a whole number"),
        ("fama/generate.sh", ["DATA", "test"], {}, "CHECKPOINT is missing"),
        ("fama/generate.sh", ["DATA", "tst", "x.pt", "out"], {}, "tst.tsv: no such manifest"),
    ],
)
def test_wrong_arguments_are_one_line(data, recorded, script, arguments, environment, message):
    arguments = [data if argument == "DATA" else argument for argument in arguments]
    result = run(script, *arguments, path=recorded.path, **environment)
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    assert message in line
    assert not (recorded.path.parent / "log").exists()


def test_a_missing_command_is_one_line(data, tmp_path):
    for name in ("dirname", "bash", "sed", "date"):
        (tmp_path / name).symlink_to(shutil.which(name))
    result = run("base/train.sh", data, "out", path="", PATH=str(tmp_path))
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert "no command fairseq-train" in line


@pytest.mark.parametrize("script", ["base/train.sh", "small/train.sh", "fama/generate.sh"])
def test_help_lists_arguments_and_variables(recorded, script):
    result = run(script, "--help", path=recorded.path)
    assert result.returncode == 0
    for variable in re.findall(r"\b([A-Z_]+)=\"\$\{\1:-", (EXAMPLES / script).read_text()):
        assert variable in result.stdout
    assert "LAUNCH" in result.stdout
    assert not re.search("shellcheck|^#", result.stdout, re.MULTILINE)


def test_readme_shows_the_specaugment_that_prepare_writes(tmp_path):
    write_config(tmp_path / "config.yaml")
    (shown,) = re.findall(r"```yaml\n(.*?)```", (EXAMPLES / "README.md").read_text(), re.DOTALL)
    written = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert yaml.safe_load(shown).items() <= written.items()
