"""A signal lets the utterance at hand finish; the same command goes on."""

from __future__ import annotations

import json
import logging
import os
import queue
import signal
import threading
import time

import pytest
from fairseq_runs import run_generate

from fbk_xattn.explain import Explainer
from fbk_xattn.store import AttributionStore
from fbk_xattn.tasks.accounting import Account
from fbk_xattn.tasks.batches import AccountedBatches
from fbk_xattn.tasks.stopping import STOPPING, StopSignals

FLAGS = ("--explain", "encoder", "--num-masks", "4")
BOTH = pytest.mark.parametrize("number", STOPPING)


@BOTH
def test_the_utterance_at_hand_is_stored(data, checkpoint, tmp_path, monkeypatch, caplog, number):
    explain, explained = Explainer.explain, []

    def signalled(self, model, utterance, *args, **kwargs):
        explained.append(utterance.id)
        if len(explained) == 2:
            os.kill(os.getpid(), number)
        return explain(self, model, utterance, *args, **kwargs)

    before = signal.getsignal(number)
    monkeypatch.setattr(Explainer, "explain", signalled)
    whole, out = tmp_path / "whole", tmp_path / "out"
    flags = ("--attribution-dir", out, *FLAGS, "--log-format", "json")
    with caplog.at_level(logging.INFO), pytest.raises(SystemExit) as stop:
        run_generate(data, checkpoint, *flags)
    assert stop.value.code == 75
    assert AttributionStore.open(out).ids() == sorted(explained)
    assert len(explained) == 2
    assert (
        f"stopped by {number.name}: 3 of 5 utterances left; run the same command again to go on"
        in caplog.messages
    )
    end = json.loads([r.message for r in caplog.records if r.name == "fbk_xattn.progress"][-1])
    assert (end["outcome"], end["decoded"], end["left"]) == ("stopped", 2, 3)
    del stop
    assert signal.getsignal(number) == before

    run_generate(data, checkpoint, *flags)
    assert len(explained) == 5
    run_generate(data, checkpoint, "--attribution-dir", whole, *FLAGS)
    for name in AttributionStore.open(whole).ids():
        one, two = (AttributionStore.open(folder).file(name) for folder in (whole, out))
        assert one.read_bytes() == two.read_bytes()


def test_a_signal_during_the_last_utterance_changes_nothing(
    data, checkpoint, tmp_path, monkeypatch
):
    write, written = AttributionStore.write, []

    def signalled(self, attribution):
        written.append(attribution.id)
        if len(written) == 5:
            os.kill(os.getpid(), signal.SIGUSR1)
        write(self, attribution)

    monkeypatch.setattr(AttributionStore, "write", signalled)
    run_generate(data, checkpoint, "--attribution-dir", tmp_path, *FLAGS)
    assert len(AttributionStore.open(tmp_path)) == 5


def stopped_account():
    account = Account(costs={"a": 1.0, "b": 1.0})
    account.signals.received = signal.SIGTERM
    return account


def test_an_error_after_the_signal_is_its_consequence():
    account = stopped_account()
    with pytest.raises(SystemExit) as stop:
        account.fail(["a"], RuntimeError("DataLoader worker is killed by signal: Terminated"))
    assert stop.value.code == 75
    assert not account.failures


def test_so_is_one_of_the_processes_that_load_data():
    def batches():
        yield {"id": [0]}
        account.signals.received = signal.SIGTERM
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Terminated")

    account = Account(costs={"a": 1.0, "b": 1.0})
    with pytest.raises(SystemExit) as stop:
        list(AccountedBatches(batches(), account))
    assert stop.value.code == 75


def test_other_errors_in_loading_are_raised():
    def batches():
        yield {"id": [0]}
        raise RuntimeError("Caught RuntimeError in DataLoader worker process 0")

    with pytest.raises(RuntimeError, match="Caught"):
        list(AccountedBatches(batches(), Account(costs={"a": 1.0})))


def test_a_signal_is_obeyed_while_a_batch_does_not_come():
    def batches():
        yield {"id": [0]}
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM)).start()
        queue.Queue().get(timeout=30)  # as fairseq waits for the thread that loads

    account = Account(signals=StopSignals(STOPPING), costs={"a": 1.0, "b": 1.0})
    started = time.monotonic()
    with pytest.raises(SystemExit) as stop:
        list(AccountedBatches(batches(), account))
    assert stop.value.code == 75
    assert time.monotonic() - started < 10


def test_a_child_of_a_process_that_waits_does_not_take_its_signals():
    signals = StopSignals(STOPPING)
    with signals.caught(), signals.obeyed():
        child = os.fork()
        if not child:
            os.kill(os.getpid(), signal.SIGUSR1)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0


def test_no_batch_is_decoded_after_the_signal():
    account = Account(costs={"a": 1.0, "b": 1.0})
    batches = iter(AccountedBatches([{"id": [0]}, {"id": [1]}], account))
    assert next(batches) == {"id": [0]}
    account.signals.received = signal.SIGUSR1
    with pytest.raises(SystemExit):
        next(batches)


def test_plain_decoding_leaves_signals_alone(data, checkpoint, monkeypatch):
    handlers = []
    load = AccountedBatches._loaded

    def recording(self):
        handlers.append(signal.getsignal(signal.SIGTERM))
        return load(self)

    monkeypatch.setattr(AccountedBatches, "_loaded", recording)
    run_generate(data, checkpoint)
    assert handlers == [signal.getsignal(signal.SIGTERM)]


def test_outside_the_main_thread_signals_are_left_alone():
    signals, inside = StopSignals(STOPPING), []

    def work():
        with signals.caught():
            inside.append(signal.getsignal(signal.SIGUSR1))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert inside == [signal.getsignal(signal.SIGUSR1)]
