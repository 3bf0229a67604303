"""An utterance is written while the next is computed, and none is lost."""

from __future__ import annotations

import errno
import threading

import pytest
from synthetic import make_attribution

from fbk_xattn.store import AttributionStore
from fbk_xattn.tasks.accounting import Account
from fbk_xattn.tasks.writing import Writing


class SlowStore:
    """A store whose writing waits to be let go, and may fail."""

    def __init__(self, folder, errors=None):
        self.store = AttributionStore.create(folder, {})
        self.errors = errors or {}
        self.go = threading.Event()
        self.written = []

    def write(self, record):
        assert self.go.wait(20)
        if record.id in self.errors:
            raise self.errors[record.id]
        self.store.write(record)
        self.written.append(record.id)

    def file(self, utterance_id):
        return self.store.file(utterance_id)


@pytest.fixture
def records(rng):
    return [make_attribution(rng, id=name) for name in "abc"]


def account():
    return Account(costs=dict.fromkeys("abc", 1.0))


def test_writing_does_not_wait(tmp_path, records):
    store, told = SlowStore(tmp_path / "s"), account()
    writing = Writing(store, told)
    writing.write(records[0], 1.0)
    writing.collect(wait=False)
    assert (store.written, told.decoded) == ([], [])
    store.go.set()
    writing.collect()
    assert store.written == told.decoded == ["a"]
    writing.collect()  # of nothing
    assert told.decoded == ["a"]


def test_all_are_written_in_their_order(tmp_path, records):
    store, told = SlowStore(tmp_path / "s"), account()
    store.go.set()
    writing = Writing(store, told)
    for record in records:
        writing.write(record, 1.0)
    assert told.decoded == ["a", "b"]
    writing.collect()
    assert store.written == told.decoded == ["a", "b", "c"]
    assert store.store.ids() == ["a", "b", "c"]


@pytest.mark.parametrize("wait", [True, False])
def test_what_one_file_does_not_take_is_noted_and_the_others_go_on(tmp_path, records, wait):
    errors = {"a": OSError(errno.EFBIG, "File too large")}
    store, told = SlowStore(tmp_path / "s", errors), account()
    store.go.set()
    writing = Writing(store, told)
    writing.write(records[0], 1.0)
    while not wait and not told.failures:
        writing.collect(wait=False)
    writing.write(records[1], 1.0)
    writing.collect()
    assert told.decoded == ["b"]
    assert list(told.failures) == ["a"]
    assert "File too large" in told.failures["a"]


def test_a_full_disk_ends_the_run_when_the_next_is_to_be_written(tmp_path, records):
    errors = {"a": OSError(errno.ENOSPC, "No space left on device")}
    store, told = SlowStore(tmp_path / "s", errors), account()
    store.go.set()
    writing = Writing(store, told)
    writing.write(records[0], 1.0)
    with pytest.raises(SystemExit, match=r"No space left.*free space.*3 of 3 utterances left"):
        writing.write(records[1], 1.0)
    assert told.decoded == []
