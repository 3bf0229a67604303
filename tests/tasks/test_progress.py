"""What a run says about how far it is."""

from __future__ import annotations

import json
import logging
import re

import pytest
from fairseq_runs import generate_argv, run_generate
from forks import ForkServer

from fbk_xattn.tasks.progress import MaskProgress, ProgressLog

FLAGS = ("--explain", "input", "encoder", "--num-masks", "20", "--perturbations-per-eval", "10")


def objects(lines):
    """Return the JSON objects of a log, found as users are told to."""
    found = (re.match(r".*fbk_xattn\.progress[ |:]*(\{.*)", line) for line in lines)
    return [json.loads(match[1]) for match in found if match]


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    return now


def test_masks_are_logged_every_ten_seconds(clock, caplog):
    progress = MaskProgress(ProgressLog(), "a/1", "input", 1000)
    with caplog.at_level(logging.INFO):
        for seconds in (4, 4, 4, 4):
            clock[0] += seconds
            progress(100)
    assert caplog.messages == ["input of 'a/1': 300 of 1000 masks, 25.0 masks/s, 28 s left"]


def test_masks_as_json(clock, caplog):
    progress = MaskProgress(ProgressLog("json", shard=3), 'with "quotes"', "encoder", 400)
    with caplog.at_level(logging.INFO):
        clock[0] += 10
        progress(100)
    (message,) = caplog.messages
    assert json.loads(message) == {
        "event": "masks", "shard": 3, "utterance": 'with "quotes"', "target": "encoder",
        "done": 100, "total": 400, "masks_per_s": 10.0, "seconds_left": 30.0,
    }  # fmt: skip


def test_a_run_in_json(data, checkpoint, tmp_path):
    with ForkServer(tmp_path / "log") as server:
        store = ("--attribution-dir", tmp_path / "store", "--log-format", "json")
        code, output = server.run(generate_argv(data, checkpoint, *store, *FLAGS))
        assert code == 0, output
        events = objects(output.splitlines())
        code, again = server.run(generate_argv(data, checkpoint, *store, *FLAGS))
    *utterances, end = events
    assert [event["event"] for event in utterances] == ["utterance"] * 5
    assert [event["done"] for event in utterances] == [1, 2, 3, 4, 5]
    assert {event["utterance"] for event in utterances} == {f"test/{n}" for n in range(5)}
    assert all(event["seconds"] > 0 and event["total"] == 5 for event in utterances)
    assert utterances[0]["seconds_left"] > 0 == utterances[-1]["seconds_left"]
    assert end == {
        "event": "end", "shard": 0, "outcome": "done", "total": 5, "decoded": 5, "present": 0,
        "failed": 0, "left": 0, "failures": {},
    }  # fmt: skip
    (end,) = objects(again.splitlines())
    assert (end["decoded"], end["present"]) == (0, 5)


def test_masks_of_a_run(data, checkpoint, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("fbk_xattn.tasks.progress.LOG_SECONDS", 0)
    with caplog.at_level(logging.INFO):
        run_generate(
            data, checkpoint, "--attribution-dir", tmp_path, "--log-format", "json", *FLAGS
        )
    events = [json.loads(r.message) for r in caplog.records if r.name == "fbk_xattn.progress"]
    masks = [event for event in events if event["event"] == "masks"]
    assert {event["target"] for event in masks} == {"input", "encoder"}
    assert all(0 < event["done"] <= event["total"] == 20 for event in masks)
    assert all(event["masks_per_s"] > 0 <= event["seconds_left"] for event in masks)


def test_people_are_told_in_sentences(data, checkpoint, tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        run_generate(data, checkpoint, "--attribution-dir", tmp_path, *FLAGS)
    said = [r.message for r in caplog.records if r.name == "fbk_xattn.progress"]
    assert re.fullmatch(r"stored 'test/\d': 1 of 5 utterances, about \d+ s left", said[0])
    assert said[-1] == "5 utterances: 5 decoded, 0 already there, 0 failed, 0 left"
