"""``fbk-xattn average-checkpoints``."""

from __future__ import annotations

import pytest
import torch
from fairseq import checkpoint_utils
from fairseq_runs import run_generate, run_train

from fbk_xattn.checkpoints import load_checkpoint
from fbk_xattn.cli.main import main


def average(*arguments):
    return main(["average-checkpoints", *map(str, arguments)])


def complaint(capsys, *arguments):
    """Return the one line that a refused command prints."""
    assert average(*arguments) == 2
    captured = capsys.readouterr()
    assert not captured.out
    (line,) = captured.err.splitlines()
    return line.removeprefix("fbk-xattn: error: ")


@pytest.fixture
def folder(tmp_path):
    """Checkpoints of epochs 1 to 11 and of updates 50 to 150, whose weight is that number."""
    numbers = {f"checkpoint{epoch}.pt": epoch for epoch in range(1, 12)}
    numbers |= {f"checkpoint_{u // 50}_{u}.pt": u for u in (50, 100, 150)}
    numbers |= {"checkpoint_best.pt": 1e6, "checkpoint_last.pt": 1e6}
    (tmp_path / "run").mkdir()
    for name, number in numbers.items():
        torch.save({"model": {"x": torch.tensor([float(number)])}}, tmp_path / "run" / name)
    return tmp_path / "run"


@pytest.mark.parametrize(
    ("flags", "names", "mean"),
    [
        ("--num-epoch-checkpoints 3", ["checkpoint9.pt", "checkpoint10.pt", "checkpoint11.pt"], 10),
        ("--num-epoch-checkpoints 2 --checkpoint-upper-bound 10",
         ["checkpoint9.pt", "checkpoint10.pt"], 9.5),
        ("--num-update-checkpoints 2", ["checkpoint_2_100.pt", "checkpoint_3_150.pt"], 125),
        ("--num-update-checkpoints 2 --checkpoint-upper-bound 149",
         ["checkpoint_1_50.pt", "checkpoint_2_100.pt"], 75),
    ],
)  # fmt: skip
def test_the_last_of_a_folder_are_averaged(folder, capsys, flags, names, mean):
    output = folder / "avg.pt"
    assert average("--inputs", folder, "--output", output, *flags.split()) == 0
    assert capsys.readouterr().out.splitlines() == [
        *(str(folder / name) for name in names),
        f"{output}: mean of {len(names)} checkpoints",
    ]
    assert load_checkpoint(output)["model"]["x"].item() == mean


def test_files_are_averaged_as_they_are(folder, capsys):
    paths = [folder / f"checkpoint{epoch}.pt" for epoch in (11, 4, 9)]
    output = folder / "avg.pt"
    assert average("--output", output, "--inputs", *paths) == 0
    *listed, last = capsys.readouterr().out.splitlines()
    assert listed == [str(path) for path in paths]
    assert last == f"{output}: mean of 3 checkpoints"
    assert load_checkpoint(output)["model"]["x"].item() == 8


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("", "--inputs"),
        ("--inputs", "--inputs"),
        ("RUN/checkpoint1.pt", "required: --inputs"),
        ("--inputs RUN", "--inputs RUN: is a folder, expected files, or --num-epoch-checkpoints or "
         "--num-update-checkpoints to choose from it"),
        ("--inputs RUN/none.pt", "RUN/none.pt: no such checkpoint"),
        ("--inputs RUN --num-epoch-checkpoints two", "'two'"),
        ("--inputs RUN --num-epoch-checkpoints 0",
         "--num-epoch-checkpoints 0: expected at least 1"),
        ("--inputs RUN --num-update-checkpoints -1",
         "--num-update-checkpoints -1: expected at least 1"),
        ("--inputs RUN --num-epoch-checkpoints 1 --num-update-checkpoints 1", "not allowed with"),
        ("--inputs RUN RUN --num-update-checkpoints 1",
         "--inputs: 2 paths, expected one folder for --num-update-checkpoints"),
        ("--inputs RUN/checkpoint1.pt --num-epoch-checkpoints 1",
         "RUN/checkpoint1.pt: not a folder, expected one for --num-epoch-checkpoints"),
        ("--inputs RUN --num-epoch-checkpoints 12",
         "RUN: found 11 checkpoints by epoch (checkpointEPOCH.pt), expected at least 12 for "
         "--num-epoch-checkpoints; those by update (checkpoint_EPOCH_UPDATE.pt) are 3, "
         "for --num-update-checkpoints"),
        ("--inputs RUN --num-epoch-checkpoints 3 --checkpoint-upper-bound 2",
         "RUN: found 2 checkpoints by epoch (checkpointEPOCH.pt) up to epoch 2, "
         "expected at least 3"),
        ("--inputs RUN/checkpoint1.pt --checkpoint-upper-bound 2",
         "--checkpoint-upper-bound: only for the checkpoints of a folder, expected "
         "--num-epoch-checkpoints or --num-update-checkpoints with it"),
    ],
)  # fmt: skip
def test_wrong_input_is_one_line(folder, capsys, arguments, said):
    arguments = arguments.replace("RUN", str(folder)).split()
    output = folder.parent / "avg.pt"
    line = complaint(capsys, "--output", output, *arguments)
    assert said.replace("RUN", str(folder)) in line
    assert not output.exists()


def test_output_may_not_be_one_of_those_taken_from_the_folder(folder, capsys):
    flags = ("--num-epoch-checkpoints", 2, "--inputs", folder, "--output")
    line = complaint(capsys, *flags, folder / "checkpoint10.pt")
    assert line == (
        f"{folder}/checkpoint10.pt: is one of the checkpoints to average, expected another file"
    )
    assert load_checkpoint(folder / "checkpoint10.pt")["model"]["x"].item() == 10


def test_average_of_one_is_that_one(checkpoint, tmp_path):
    output = tmp_path / "mean.pt"
    assert average("--inputs", checkpoint, "--output", output) == 0
    ours, theirs = load_checkpoint(output), load_checkpoint(checkpoint)
    assert ours["model"].keys() == theirs["model"].keys()
    assert all(torch.equal(ours["model"][name], w) for name, w in theirs["model"].items())
    assert ours["cfg"] == theirs["cfg"]
    assert theirs["last_optimizer_state"]
    assert ours["last_optimizer_state"] is None


def test_average_of_a_training_decodes_and_is_trained_further(data, tmp_path):
    folder, output = tmp_path / "run", tmp_path / "run" / "avg.pt"
    run_train(data, folder, "--save-interval-updates", "1", "--keep-interval-updates", "2")
    assert average("--inputs", folder, "--output", output, "--num-update-checkpoints", 2) == 0
    written = sorted(folder.glob("checkpoint_[0-9]*_[0-9]*.pt"))
    parts = [load_checkpoint(path)["model"] for path in written]
    assert len(parts) == 2
    (model,), _ = checkpoint_utils.load_model_ensemble([str(output)])
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, load_checkpoint(output)["model"][name]), name
        if tensor.is_floating_point():
            expected = (parts[0][name].double() + parts[1][name].double()) / 2
            torch.testing.assert_close(tensor.double(), expected, rtol=1e-6, atol=1e-9)
    assert any(line.startswith("H-") for line in run_generate(data, output))

    flags = ("--finetune-from-model", str(output), "--max-update", "1", "--lr", "1e-12")
    run_train(data, tmp_path / "further", *flags)
    further = load_checkpoint(tmp_path / "further" / "checkpoint_last.pt")["model"]
    for name, tensor in load_checkpoint(output)["model"].items():
        if ".batchnorm." not in name:  # its statistics change without learning
            torch.testing.assert_close(further[name], tensor, rtol=0, atol=1e-6, msg=name)
