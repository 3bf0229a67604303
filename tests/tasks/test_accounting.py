"""Every utterance has an outcome, and the exit code tells."""

from __future__ import annotations

import logging

import pytest

from fbk_xattn.errors import InputError
from fbk_xattn.tasks.accounting import Account, failure_reason
from fbk_xattn.tasks.batches import AccountedBatches


def account_of(ids, **outcomes):
    return Account(costs=dict.fromkeys(ids, 1.0), **outcomes)


def test_failures_of_batches_are_kept_and_reported_at_the_end(caplog):
    account = account_of("abc")
    batches = [{"id": [0]}, {"id": [1], "failures": {"b": "no file"}}, {"failures": {"c": "empty"}}]
    iterator = iter(AccountedBatches(batches, account))
    assert [next(iterator) for _ in batches] == [{"id": [0]}, {"id": [1]}, {}]
    with caplog.at_level(logging.ERROR), pytest.raises(SystemExit) as stop:
        next(iterator)
    assert stop.value.code == "fbk_xattn: error: 2 of 3 utterances failed, first 'b': no file"
    assert "'c': empty" in caplog.text


def test_all_done_is_no_error():
    account = account_of("ab", decoded=["a"], present=["b"])
    assert account.close() is None


def test_nothing_to_do_ends_well():
    with pytest.raises(SystemExit) as stop:
        Account().close()
    assert stop.value.code == 0


def test_what_is_left_is_what_has_no_outcome():
    account = account_of("abcde", decoded=["c"], present=["a"], failures={"d": "why"})
    assert account.left == ["b", "e"]
    assert account.total == 5


def test_time_left_is_that_of_the_pace_so_far(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    account = account_of("abcdefghij", started=100.0)
    assert account.seconds_left() is None
    now[0] = 130.0
    account.decoded += ["a", "b", "c"]
    account.present += ["d"]
    assert account.seconds_left() == pytest.approx(60.0)  # 10 s each, 6 left


def test_time_left_weighs_utterances_by_their_work(monkeypatch):
    monkeypatch.setattr("time.monotonic", lambda: 130.0)
    account = Account(costs={"long": 30.0, "short": 1.0, "other": 2.0}, started=100.0)
    account.decoded += ["long"]
    assert account.seconds_left() == pytest.approx(3.0)  # 1 s for a unit of work, 3 units left


def test_a_run_that_cannot_go_on_says_why_and_what_is_left():
    account = account_of("abc", decoded=["a"])
    with pytest.raises(SystemExit) as stop:
        account.abort("no space")
    assert stop.value.code == "fbk_xattn: error: no space (2 of 3 utterances left)"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (InputError("a.npy: no such file"), "a.npy: no such file"),
        (RuntimeError("shapes\n  differ"), "RuntimeError: shapes differ"),
        (KeyError("tokens"), "KeyError: 'tokens'"),
        (AssertionError(), "AssertionError"),
    ],
)
def test_reasons_are_one_line_and_never_empty(error, reason):
    assert failure_reason(error) == reason


def test_every_utterance_is_own_until_shares_are_dealt():
    account = Account()
    assert account.is_own("a")
    account.finish("a", 1.0)  # no share, so no time left to tell
    account.costs = {"a": 1.0}
    assert account.is_own("a")
    assert not account.is_own("b")
