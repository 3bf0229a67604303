"""A GPU that fails for good ends the run with one line, and a GPU that does not goes on."""

import logging
import os
import subprocess
import sys

import pytest
import torch

from fbk_xattn.tasks.accounting import Account
from fbk_xattn.tasks.lost_device import device_failure

# An index out of bounds on the device: as every error of a kernel, it spoils all later calls.
SPOIL_THE_DEVICE = """
import logging
import torch
from fbk_xattn.tasks.accounting import Account

logging.basicConfig()
account = Account(costs=dict.fromkeys("abc", 1.0), decoded=["a"])
vector = torch.zeros(10, device="cuda")
try:
    vector[torch.tensor([1 << 40], device="cuda")].cpu()
except RuntimeError as error:
    account.fail(["b"], error)
print("went on")
"""
LINE = (
    "fbk_xattn: error: the GPU failed and answers no more ({}), 2 of 3 utterances are not done; "
    "run the same command again, it goes on from what is stored"
)


class Exit(BaseException):
    """In place of the end of the process."""


@pytest.fixture
def device(monkeypatch):
    """Give the function that answers for a GPU."""
    answers = [lambda: None]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: answers[-1]())
    return answers


def spoilt():
    raise RuntimeError("CUDA error: an illegal memory access was encountered\nCompile with ...")


def test_a_lost_device_ends_the_run_with_one_line(device, monkeypatch, caplog):
    def end(code):
        raise Exit(code)

    monkeypatch.setattr(os, "_exit", end)
    monkeypatch.setattr(logging, "shutdown", lambda: None)
    device.append(spoilt)
    account = Account(costs=dict.fromkeys("abc", 1.0), decoded=["a"])
    with caplog.at_level(logging.INFO), pytest.raises(Exit) as stop:
        account.fail(["b"], RuntimeError("something else that came of it"))
    assert stop.value.args == (1,)
    reason = "CUDA error: an illegal memory access was encountered"
    assert caplog.messages[-1] == LINE.format(reason)
    assert "failed: utterance 'b': RuntimeError: something else that came of it" in caplog.messages
    assert "1 decoded" in caplog.text


@pytest.mark.usefixtures("device")
def test_a_device_that_answers_leaves_the_others_to_go_on():
    assert device_failure() is None
    account = Account(costs=dict.fromkeys("ab", 1.0))
    account.fail(["a"], torch.OutOfMemoryError("no room"))
    assert account.left == ["b"]


def test_without_a_device_nothing_is_asked(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    monkeypatch.setattr(torch.cuda, "synchronize", spoilt)
    assert device_failure() is None


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_device_that_was_spoilt_in_earnest():
    done = subprocess.run(
        [sys.executable, "-c", SPOIL_THE_DEVICE], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 1, done.stderr
    assert "went on" not in done.stdout
    last = done.stderr.strip().splitlines()[-1]
    assert "the GPU failed and answers no more (CUDA error: " in last
    assert "2 of 3 utterances are not done" in last
