import argparse
import collections
import os
import typing
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoint_files import Hostile, new_folder, refused, save_checkpoint, weights
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from fbk_xattn.checkpoints import last_checkpoints, load_checkpoint

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture
def save(tmp_path):
    return partial(save_checkpoint, tmp_path)


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


# ---- the last ones of a folder

OTHERS = (
    "checkpoint_best.pt", "checkpoint_last.pt", "checkpoint.best_loss_3.1417.pt", "checkpoint.pt",
    "checkpoint99.pt.tmp", "checkpoint_9_99.pt.tmp", ".checkpoint98.pt.7.tmp", "xcheckpoint96.pt",
    "checkpoint97-rank0.pt", "checkpoint_95.pt", "checkpoint_1_2_3.pt", "checkpoint_avg.pt",
    "checkpoint-4.pt",
)  # fmt: skip


def touch(folder, *names):
    for name in names:
        (folder / name).touch()
    return folder


numbers = st.sets(st.integers(1, 3000), min_size=1, max_size=12)
bounds = st.none() | st.integers(0, 3000)


@given(epochs=numbers, updates=numbers, n=st.integers(1, 12), bound=bounds, by_epoch=st.booleans())
@settings(deadline=None)
def test_the_last_by_number_are_taken(epochs, updates, n, bound, by_epoch):
    # Epochs that decrease as updates increase: only the update counts.
    by_update = {u: f"checkpoint_{4000 - u}_{u}.pt" for u in updates}
    names = {e: f"checkpoint{e}.pt" for e in epochs} if by_epoch else by_update
    below = [number for number in sorted(names) if bound is None or number <= bound]
    with new_folder() as folder:
        touch(folder, *OTHERS, *by_update.values(), *(f"checkpoint{e}.pt" for e in epochs))
        arguments = (folder, "epoch" if by_epoch else "update", n, bound)
        if len(below) < n:
            assert f"found {len(below)} checkpoints by" in refused(last_checkpoints, *arguments)
        else:
            taken = last_checkpoints(*arguments)
            assert taken == [folder / names[number] for number in below[-n:]]


def test_order_is_by_number_and_not_by_letter(tmp_path):
    touch(tmp_path, *(f"checkpoint{epoch}.pt" for epoch in (8, 9, 10, 11, 100)))
    taken = last_checkpoints(tmp_path, "epoch", 3, 11)
    assert [path.name for path in taken] == ["checkpoint9.pt", "checkpoint10.pt", "checkpoint11.pt"]


def test_epochs_decide_between_equal_updates(tmp_path):
    """Of two trainings into one folder."""
    touch(tmp_path, "checkpoint_9_500.pt", "checkpoint_10_500.pt", "checkpoint_11_400.pt")
    taken = last_checkpoints(tmp_path, "update", 2)
    assert [path.name for path in taken] == ["checkpoint_9_500.pt", "checkpoint_10_500.pt"]


def test_a_folder_with_the_name_of_a_checkpoint_is_none(tmp_path):
    touch(tmp_path, "checkpoint1.pt")
    (tmp_path / "checkpoint2.pt").mkdir()
    assert last_checkpoints(tmp_path, "epoch", 1) == [tmp_path / "checkpoint1.pt"]


@pytest.mark.parametrize(
    ("names", "by", "bound", "said"),
    [
        (
            OTHERS,
            "epoch",
            None,
            "found 0 checkpoints by epoch (checkpointEPOCH.pt), "
            "expected at least 2 for --num-epoch-checkpoints",
        ),
        (
            ["checkpoint3.pt", "checkpoint8.pt"],
            "epoch",
            7,
            "found 1 checkpoints by epoch (checkpointEPOCH.pt) up to epoch 7, "
            "expected at least 2 for --num-epoch-checkpoints",
        ),
        (
            ["checkpoint_1_50.pt", "checkpoint_2_100.pt", "checkpoint_2_150.pt"],
            "epoch",
            None,
            "found 0 checkpoints by epoch (checkpointEPOCH.pt), "
            "expected at least 2 for --num-epoch-checkpoints; "
            "those by update (checkpoint_EPOCH_UPDATE.pt) are 3, for --num-update-checkpoints",
        ),
        (
            ["checkpoint1.pt", "checkpoint2.pt", "checkpoint_2_100.pt"],
            "update",
            99,
            "found 0 checkpoints by update (checkpoint_EPOCH_UPDATE.pt) up to update 99, "
            "expected at least 2 for --num-update-checkpoints; "
            "those by epoch (checkpointEPOCH.pt) are 2, for --num-epoch-checkpoints",
        ),
    ],
)
def test_too_few_are_refused(tmp_path, names, by, bound, said):
    touch(tmp_path, *names)
    assert refused(last_checkpoints, tmp_path, by, 2, bound) == f"{tmp_path}: {said}"


@pytest.mark.parametrize("n", [0, -3])
def test_none_at_all_is_refused(tmp_path, n):
    touch(tmp_path, "checkpoint1.pt")
    message = refused(last_checkpoints, tmp_path, "epoch", n)
    assert message == f"--num-epoch-checkpoints {n}: expected at least 1"


@pytest.mark.parametrize("name", ["checkpoint1.pt", "none"])
def test_what_is_no_folder_is_refused(tmp_path, name):
    touch(tmp_path, "checkpoint1.pt")
    message = refused(last_checkpoints, tmp_path / name, "update", 1)
    assert message == f"{tmp_path / name}: not a folder, expected one for --num-update-checkpoints"
