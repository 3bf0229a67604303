"""Batches that processes load, and what their death leads to."""

from __future__ import annotations

import json
import logging
import os
import signal

import pytest
import torch
from fairseq_runs import run_generate
from torch.utils.data import DataLoader, get_worker_info

from fbk_xattn.data.dataset import SpeechToTextCTCDataset
from fbk_xattn.store import AttributionStore
from fbk_xattn.tasks.accounting import Account
from fbk_xattn.tasks.batches import AccountedBatches, _Collate

FLAGS = ("--explain", "encoder", "--num-masks", "4", "--num-workers", "1")


def collate(samples):
    return {"id": samples, "tensor": torch.tensor(samples), "net_input": {"x": torch.ones(2, 3)}}


@pytest.mark.parametrize("num_workers", [0, 1])
def test_batches_arrive_as_they_were_made(num_workers):
    loader = DataLoader(
        [4, 5, 6], batch_size=2, collate_fn=_Collate(collate), num_workers=num_workers
    )
    account = Account(costs={"a": 1.0}, decoded=["b"])
    first, last = AccountedBatches(loader, account)
    assert (first["id"], last["id"]) == ([4, 5], [6])
    assert last["tensor"].equal(torch.tensor([6]))
    assert first["net_input"]["x"].equal(torch.ones(2, 3))


def test_processes_hand_over_batches_without_shared_memory():
    loader = DataLoader([4, 5], collate_fn=_Collate(collate), num_workers=1)
    assert all(isinstance(batch, bytes) for batch in loader)


def test_the_death_of_a_process_that_loads_data_is_one_line(
    data, checkpoint, tmp_path, monkeypatch, caplog
):
    load = SpeechToTextCTCDataset.__getitem__
    once = tmp_path / "killed"

    def killed(self, index):
        if get_worker_info() is not None and not once.exists():
            once.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return load(self, index)

    monkeypatch.setattr(SpeechToTextCTCDataset, "__getitem__", killed)
    flags = ("--attribution-dir", tmp_path / "out", *FLAGS, "--log-format", "json")
    with caplog.at_level(logging.INFO), pytest.raises(SystemExit) as stop:
        run_generate(data, checkpoint, *flags)
    assert stop.value.code == (
        "fbk_xattn: error: a process that loads data died (out of memory?); the same command goes "
        "on (5 of 5 utterances left)"
    )
    end = json.loads([r.message for r in caplog.records if r.name == "fbk_xattn.progress"][-1])
    assert (end["outcome"], end["left"]) == ("aborted", 5)
    run_generate(data, checkpoint, *flags)
    assert len(AttributionStore.open(tmp_path / "out")) == 5
