"""Every utterance has an outcome, and the exit code tells."""

from __future__ import annotations

import logging

import pytest

from fbk_xattn.tasks.accounting import Account, AccountedBatches


def test_failures_of_batches_are_kept_and_reported_at_the_end(caplog):
    account = Account(total=3)
    batches = [{"id": [0]}, {"id": [1], "failures": {"b": "no file"}}, {"failures": {"c": "empty"}}]
    iterator = iter(AccountedBatches(batches, account))
    assert [next(iterator) for _ in batches] == [{"id": [0]}, {"id": [1]}, {}]
    with caplog.at_level(logging.ERROR), pytest.raises(SystemExit) as stop:
        next(iterator)
    assert stop.value.code == "fbk_xattn: error: 2 of 3 utterances failed, first 'b': no file"
    assert "'c': empty" in caplog.text


def test_all_done_is_no_error():
    account = Account(total=2, decoded=["a"], present=["b"])
    assert account.close() is None


def test_nothing_to_do_ends_well():
    with pytest.raises(SystemExit) as stop:
        Account().close()
    assert stop.value.code == 0


def test_time_left_is_that_of_the_pace_so_far(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    account = Account(total=10, started=100.0)
    assert account.seconds_left() == float("inf")
    now[0] = 130.0
    account.decoded += ["a", "b", "c"]
    account.present += ["d"]
    assert account.seconds_left() == pytest.approx(60.0)  # 10 s each, 6 left
