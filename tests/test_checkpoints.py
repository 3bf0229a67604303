import argparse
import collections
import os
import typing
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from fbk_xattn.checkpoints import average_checkpoints, load_checkpoint
from fbk_xattn.errors import InputError

GOLDEN = Path(__file__).parent / "golden"


def weights(seed, n=3):
    generator = torch.Generator().manual_seed(seed)
    return {
        "encoder.weight": torch.randn(n, 4, generator=generator),
        "encoder.half": torch.randn(5, generator=generator).half(),
        "encoder.num_batches_tracked": torch.tensor(10 * seed),
    }


@pytest.fixture
def save(tmp_path):
    """Save a checkpoint and return its path."""

    def write(name="a.pt", **entries):
        entries.setdefault("model", weights(1))
        torch.save(entries, tmp_path / name)
        return tmp_path / name

    return write


def refused(call, *args):
    with pytest.raises(InputError) as caught:
        call(*args)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---- reading


def test_flags_in_a_namespace_are_read(save):
    flags = argparse.Namespace(arch="conformer", lr=[0.1], nested={"a": (1, None)})
    checkpoint = load_checkpoint(save(args=flags))
    assert checkpoint["args"] == flags
    assert torch.equal(checkpoint["model"]["encoder.weight"], weights(1)["encoder.weight"])


def test_flags_in_omegaconf_containers_are_read(save):
    cfg = OmegaConf.create({"task": {"lr": [0.1, 2], "name": "x"}, "model": None})
    cfg = OmegaConf.merge(cfg, {"extra": 1.5})
    OmegaConf.set_struct(cfg, value=True)
    assert load_checkpoint(save(cfg=cfg))["cfg"] == cfg


def test_flags_in_a_typed_omegaconf_container_with_a_namespace_are_read(save):
    cfg = OmegaConf.create({"model": None, "any": None}, flags={"allow_objects": True})
    cfg.model = argparse.Namespace(arch="conformer")
    cfg._metadata.ref_type = typing.Any
    assert load_checkpoint(save(cfg=cfg))["cfg"].model.arch == "conformer"


def test_numpy_scores_and_arrays_are_read(save):
    state = {
        "best": np.float64(3.5),
        "single": np.float32(1.25),
        "flag": np.bool_(1),
        "count": np.int64(7),
        "array": np.arange(3),
    }
    read = load_checkpoint(save(extra_state=state))["extra_state"]
    assert {k: v for k, v in read.items() if k != "array"} == {
        k: v for k, v in state.items() if k != "array"
    }
    assert np.array_equal(read["array"], state["array"])


def test_default_dictionaries_are_read(save):
    """Empty ones; torch itself reads no others."""
    state = collections.defaultdict(dict)
    assert load_checkpoint(save(last_optimizer_state=state))["last_optimizer_state"] == state


def test_published_checkpoint_is_read():
    checkpoint = load_checkpoint(GOLDEN / "checkpoint_joint.pt")
    assert checkpoint["cfg"].model.arch == "conformer_joint_ctc"
    assert checkpoint["cfg"].optimizer.adam_betas == "(0.9, 0.98)"
    assert checkpoint["extra_state"]["best"] == pytest.approx(31.78)
    assert len(checkpoint["model"]) > 100


class Hostile:
    """Runs a command when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.system, (f"touch {self.path}",))


@pytest.mark.parametrize("place", ["model", "args", "extra_state"])
@pytest.mark.parametrize("legacy", [False, True])
def test_checkpoint_that_runs_code_is_refused_and_not_run(tmp_path, place, legacy):
    path, marker = tmp_path / "a.pt", tmp_path / "ran"
    entries = {"model": weights(1), place: Hostile(marker)}
    torch.save(entries, path, _use_new_zipfile_serialization=not legacy)
    message = refused(load_checkpoint, path)
    assert message == (
        f"{path}: unreadable checkpoint (it holds {os.system.__module__}.system, "
        "expected tensors and flags only)"
    )
    assert not marker.exists()
    torch.load(path, weights_only=False)  # what it would have done
    assert marker.exists()


def test_class_that_is_not_on_the_list_is_refused(save):
    message = refused(load_checkpoint, save(args=Path("x")))
    assert "a.pt: unreadable checkpoint (it holds pathlib." in message
    assert "weights_only" not in message


def test_missing_checkpoint_is_named(tmp_path):
    assert refused(load_checkpoint, tmp_path / "x.pt") == f"{tmp_path}/x.pt: no such checkpoint"
    assert "no such checkpoint" in refused(load_checkpoint, tmp_path)


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04", b"\x80\x02"])
def test_file_that_is_no_checkpoint_is_refused(tmp_path, content):
    (tmp_path / "x.pt").write_bytes(content)
    assert "x.pt: unreadable checkpoint (" in refused(load_checkpoint, tmp_path / "x.pt")


def test_cut_checkpoint_is_refused(save):
    path = save()
    path.write_bytes(path.read_bytes()[:-100])
    assert "unreadable checkpoint" in refused(load_checkpoint, path)


@pytest.mark.parametrize("content", [{"weights": {}}, [1], torch.zeros(3), {"model": 3}])
def test_file_of_another_kind_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "x.pt")
    message = refused(load_checkpoint, tmp_path / "x.pt")
    assert "not a checkpoint of fairseq, expected an entry 'model'" in message


# ---- averaging


def test_average_is_the_mean_of_the_weights(save, tmp_path):
    paths = [save(f"{seed}.pt", model=weights(seed)) for seed in (1, 2, 4)]
    average_checkpoints(paths, tmp_path / "mean.pt")
    mean = load_checkpoint(tmp_path / "mean.pt")["model"]
    parts = [weights(seed) for seed in (1, 2, 4)]
    assert mean.keys() == parts[0].keys()
    for name in ("encoder.weight", "encoder.half"):
        expected = np.mean([p[name].numpy().astype(np.float64) for p in parts], axis=0)
        assert mean[name].dtype == parts[0][name].dtype
        np.testing.assert_allclose(
            mean[name].numpy(), expected.astype(mean[name].numpy().dtype), rtol=1e-6
        )


def test_integer_buffers_stay_integers(save, tmp_path):
    paths = [save(f"{seed}.pt", model=weights(seed)) for seed in (1, 2, 4)]
    average_checkpoints(paths, tmp_path / "mean.pt")
    counter = load_checkpoint(tmp_path / "mean.pt")["model"]["encoder.num_batches_tracked"]
    assert counter.dtype == torch.int64
    assert counter.item() == 23


def test_average_of_one_checkpoint_is_itself(save, tmp_path):
    average_checkpoints([save()], tmp_path / "mean.pt")
    for name, tensor in load_checkpoint(tmp_path / "mean.pt")["model"].items():
        assert torch.equal(tensor, weights(1)[name])


def test_half_precision_is_averaged_in_full(save, tmp_path):
    """In half precision the sum of 40,000 and 50,000 would be infinite."""
    paths = [save(f"{value}.pt", model={"x": torch.tensor([value]).half()}) for value in (4e4, 5e4)]
    average_checkpoints(paths, tmp_path / "mean.pt")
    assert load_checkpoint(tmp_path / "mean.pt")["model"]["x"].item() == pytest.approx(4.5e4, 1e-3)


def test_average_has_the_flags_of_the_last_and_no_optimizer_state(save, tmp_path):
    paths = [
        save(f"{n}.pt", args=argparse.Namespace(n=n), last_optimizer_state={"n": n})
        for n in range(2)
    ]
    average_checkpoints(paths, tmp_path / "mean.pt")
    checkpoint = load_checkpoint(tmp_path / "mean.pt")
    assert checkpoint["args"].n == 1
    assert checkpoint["last_optimizer_state"] is None


def test_average_of_published_checkpoints_is_read_again(tmp_path):
    """Omegaconf pickles its containers otherwise than the version that wrote them."""
    published, once, twice = GOLDEN / "checkpoint_joint.pt", tmp_path / "1.pt", tmp_path / "2.pt"
    average_checkpoints([published, published], once)
    average_checkpoints([once, published], twice)
    expected, read = load_checkpoint(published), load_checkpoint(twice)
    assert read["cfg"] == expected["cfg"]
    assert read["cfg"].model == expected["cfg"].model
    for name, tensor in expected["model"].items():
        torch.testing.assert_close(read["model"][name], tensor, msg=name)


@pytest.mark.parametrize(
    "other",
    [
        {**weights(1), "more": torch.zeros(1)},
        {k: v for k, v in weights(1).items() if k != "encoder.half"},
        weights(1, n=2),
    ],
    ids=["more", "fewer", "another shape"],
)
def test_checkpoints_of_two_models_are_refused(save, tmp_path, other):
    first, second = save("1.pt"), save("2.pt", model=other)
    output = tmp_path / "mean.pt"
    message = refused(average_checkpoints, [first, second], output)
    assert message == f"{second}: weights of another model than {first}"
    assert not output.exists()


def test_failed_average_leaves_the_old_file_alone(save, tmp_path, monkeypatch):
    output = save("mean.pt", model={"x": torch.ones(1)})
    with pytest.raises(InputError, match=r"b\.pt: no such checkpoint"):
        average_checkpoints([save("a.pt"), tmp_path / "b.pt"], output)

    def full_disk(_, path):
        Path(path).write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(torch, "save", full_disk)
    message = refused(average_checkpoints, [tmp_path / "a.pt"], output)
    assert "mean.pt: cannot be written (No space left on device)" in message
    monkeypatch.undo()
    assert load_checkpoint(output)["model"]["x"].item() == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.pt", "mean.pt"]


def test_the_folder_of_the_output_is_made(save, tmp_path):
    average_checkpoints([save()], tmp_path / "new" / "mean.pt")
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["mean.pt"]


def test_an_output_that_is_a_folder_is_refused(save, tmp_path):
    message = refused(average_checkpoints, [save()], tmp_path)
    assert message == f"{tmp_path}: is a folder, expected the name of a file"


def test_output_may_be_one_of_the_inputs(save):
    paths = [save(f"{seed}.pt", model=weights(seed)) for seed in (1, 3)]
    average_checkpoints(paths, paths[0])
    mean = load_checkpoint(paths[0])["model"]["encoder.weight"]
    expected = (weights(1)["encoder.weight"] + weights(3)["encoder.weight"]) / 2
    torch.testing.assert_close(mean, expected)
