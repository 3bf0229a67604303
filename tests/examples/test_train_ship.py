"""The shipped model of a trained one: small, without paths, and the same to fairseq."""

import argparse
import hashlib

import pytest
import torch
from checkpoint_files import refused, save_checkpoint
from fairseq.checkpoint_utils import load_model_ensemble_and_task
from fairseq_runs import run_generate, run_train

from examples.prompts.train import ship
from fbk_xattn.checkpoints import load_checkpoint


@pytest.fixture
def vocabulary(tmp_path):
    """A folder with what is copied beside a model."""
    folder = tmp_path / "vocabulary"
    folder.mkdir()
    for name in ship.DATA_FILES:
        (folder / name).write_text(name)
    return folder


@pytest.fixture(scope="module")
def model(checkpoint, data, tmp_path_factory):
    """The folder of the shipped model of ``checkpoint``."""
    folder = tmp_path_factory.mktemp("model")
    ship.write(checkpoint, data, folder)
    return folder


def parts(folder):
    return sorted(folder.glob("model.pt.*"))


def joined(folder):
    """Join the parts as a shell does, and return the file."""
    file = folder / "model.pt"
    file.write_bytes(b"".join(part.read_bytes() for part in parts(folder)))
    return file


def strings(value):
    """Return every string somewhere in a checkpoint."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, argparse.Namespace):
        value = vars(value)
    if isinstance(value, dict):
        value = [*value.keys(), *value.values()]
    if isinstance(value, list | tuple):
        return [found for each in value for found in strings(each)]
    return []


def test_weights_in_half_precision_and_nothing_of_the_training(model, checkpoint):
    full, shipped = load_checkpoint(checkpoint), load_checkpoint(joined(model))
    assert full["last_optimizer_state"]
    assert not shipped["last_optimizer_state"]
    assert shipped["extra_state"] == {"train_iterator": {"epoch": 1}}
    assert "best_loss" not in str(shipped["optimizer_history"])
    assert shipped["model"].keys() == full["model"].keys()
    for name, weight in full["model"].items():
        expected = weight.half() if weight.is_floating_point() else weight
        assert shipped["model"][name].dtype == expected.dtype
        assert torch.equal(shipped["model"][name], expected), name


def test_flags_name_no_folder(model, checkpoint, data):
    flags = load_checkpoint(checkpoint)["cfg"]
    assert str(data) in strings(flags)
    shipped = load_checkpoint(joined(model))
    assert shipped["cfg"]["task"].data == data.name
    assert [value for value in strings(shipped) if value.startswith("/")] == []
    for content in (part.read_bytes() for part in parts(model)):
        assert str(data.parent).encode() not in content


def test_paths_in_lists_lose_their_folders_and_other_flags_stay():
    flags = {
        "common": {"user_dir": "/somewhere/fbk_xattn", "seed": 1, "lr": [0.1], "none": None},
        "task": argparse.Namespace(data=["/a/b", "c/d"], steps=(1, 2), text="1/2"),
    }
    cfg = ship.shipped({"model": {}, "cfg": flags})["cfg"]
    assert cfg["common"] == {"user_dir": "fbk_xattn", "seed": 1, "lr": [0.1], "none": None}
    assert vars(cfg["task"]) == {"data": ["b", "c/d"], "steps": [1, 2], "text": "1/2"}


def test_tied_weights_are_written_once_and_of_views_only_what_is_seen(vocabulary, tmp_path):
    tied, large = torch.randn(1000, 100), torch.randn(100, 1000).half()
    weights = {"a": tied, "b": tied, "same": tied.clone(), "row": large[3], "n": torch.tensor(5)}
    n_bytes = ship.write(save_checkpoint(tmp_path, model=weights), vocabulary, tmp_path / "out")
    assert 2 * (2 * tied.numel() + 1000) < n_bytes < 2 * (2 * tied.numel() + 1000) + 10_000
    read = load_checkpoint(joined(tmp_path / "out"))["model"]
    assert read["a"].data_ptr() == read["b"].data_ptr() != read["same"].data_ptr()
    assert torch.equal(read["row"], large[3])
    assert read["n"] == 5


def test_parts_join_to_the_file_of_the_checksum(vocabulary, tmp_path, monkeypatch):
    assert ship.PART <= 13_000_000
    monkeypatch.setattr(ship, "PART", 10_000)
    checkpoint = save_checkpoint(tmp_path, model={"w": torch.randn(20_000)})
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "model.pt.8").write_bytes(b"of an earlier model")
    n_bytes = ship.write(checkpoint, vocabulary, folder)
    sizes = [part.stat().st_size for part in parts(folder)]
    assert sizes[:-1] == [10_000] * (len(sizes) - 1)
    assert 0 < sizes[-1] <= 10_000
    assert sum(sizes) == n_bytes
    digest = hashlib.sha256(joined(folder).read_bytes()).hexdigest()
    assert (folder / "SHA256SUMS").read_text() == f"{digest}  model.pt\n"
    for name in ship.DATA_FILES:
        assert (folder / name).read_text() == name


def loaded(path, data):
    (model,), _, task = load_model_ensemble_and_task([str(path)], {"data": str(data)})
    return model.eval(), task


@torch.no_grad()
def test_gives_fairseq_the_same_logits_within_half_precision(model, checkpoint, data):
    ours, task = loaded(joined(model), data)
    task.load_dataset("test")
    batch = task.dataset("test").collater([task.dataset("test")[n] for n in range(3)])
    inputs = batch["net_input"]
    logits = [
        each.get_normalized_probs(each(**inputs), log_probs=True)
        for each in (loaded(checkpoint, data)[0], ours)
    ]
    assert logits[1].dtype == torch.float32
    torch.testing.assert_close(logits[1], logits[0], rtol=0, atol=5e-3)
    assert not torch.equal(logits[1], logits[0])


def test_gives_the_same_hypotheses(model, checkpoint, data):
    def hypotheses(path):
        return [
            line.split("\t")[0::2] for line in run_generate(data, path) if line.startswith("D-")
        ]

    expected = hypotheses(checkpoint)
    assert len(expected) == 5
    assert hypotheses(joined(model)) == expected


@pytest.mark.parametrize("name", ship.DATA_FILES)
def test_a_missing_data_file_is_named(name, vocabulary, tmp_path):
    (vocabulary / name).unlink()
    out = tmp_path / "out"
    line = refused(ship.write, save_checkpoint(tmp_path), vocabulary, out)
    assert f"{vocabulary / name}: no such file" in line
    assert not out.exists()


def test_what_cannot_be_shipped_is_refused(vocabulary, tmp_path, monkeypatch):
    out = tmp_path / "out"
    large = save_checkpoint(tmp_path, "large.pt", model={"bias": torch.tensor([1e5])})
    assert "weight bias: " in refused(ship.write, large, vocabulary, out)
    assert "no such checkpoint" in refused(ship.write, tmp_path / "none.pt", vocabulary, out)
    file = tmp_path / "file"
    file.touch()
    assert str(file) in refused(ship.write, save_checkpoint(tmp_path), vocabulary, file)
    monkeypatch.setattr(ship, "PART", 100)
    assert "at most 9" in refused(ship.write, save_checkpoint(tmp_path), vocabulary, out)
    assert not out.exists()


def test_command_line(vocabulary, tmp_path, capsys):
    checkpoint = save_checkpoint(tmp_path)
    ship.main([str(checkpoint), str(vocabulary), str(tmp_path / "out")])
    assert capsys.readouterr().out.startswith(f"{tmp_path / 'out'}: 0.0")
    with pytest.raises(SystemExit, match=r"^error: .*none\.pt: no such checkpoint"):
        ship.main([str(tmp_path / "none.pt"), str(vocabulary), str(tmp_path / "out")])


def test_can_be_trained_further(model, data, tmp_path):
    run_train(data, tmp_path, "--finetune-from-model", str(joined(model)), "--max-update", "1")
    trained = load_checkpoint(tmp_path / "checkpoint_last.pt")
    assert trained["optimizer_history"][-1]["num_updates"] == 1
