"""However often a run is killed, its store ends up as that of one that was left alone."""

from __future__ import annotations

import random
import shutil
import signal
import time

import pytest
from fairseq_runs import generate_argv
from forks import ForkServer

from fbk_xattn.store import AttributionStore

FLAGS = (
    "--gen-subset", "dev,test", "--save-cross-attention", "--explain", "input", "encoder",
    "--num-masks", "90",
)  # fmt: skip
KILLS = 30


@pytest.fixture
def server(tmp_path):
    with ForkServer(tmp_path / "log") as server:
        yield server


def visible(store):
    """Return the content of each file without a leading dot, but for the first run's command."""
    return {
        path.name: path.read_bytes() for path in store.glob("[!.]*") if path.name != "meta.json"
    }


def wait_for_a_change(server, store):
    """Wait until the store's folder holds something new, or the process has ended."""
    names = set(store.glob("*"))
    while server.runs() and set(store.glob("*")) == names:
        time.sleep(0.002)


def test_killed_thirty_times(server, data, checkpoint, tmp_path):
    def argv(folder):
        return generate_argv(data, checkpoint, "--attribution-dir", tmp_path / folder, *FLAGS)

    code, output = server.run(argv("whole"))
    assert code == 0, output
    whole = visible(tmp_path / "whole")
    started = time.monotonic()
    server.run(argv("whole"))
    seconds_to_start = time.monotonic() - started

    store, moments, kills, sizes = tmp_path / "killed", random.Random(4), 0, []
    while kills < KILLS:
        server.start(argv("killed"))
        if moments.random() < 0.4:
            time.sleep(moments.uniform(0, seconds_to_start))
        else:  # while it explains or writes, however fast the machine is today
            wait_for_a_change(server, store)
            time.sleep(moments.expovariate(1 / 0.05))
        server.send(signal.SIGKILL)
        code = server.wait()
        there = visible(store) if store.exists() else {}
        assert there.items() <= whole.items()  # whole files alone
        sizes.append(len(there))
        if code == -signal.SIGKILL:
            kills += 1
            continue
        assert code == 0, server.log.read_text()
        assert there == whole
        shutil.rmtree(store)  # it was faster; once more from the beginning
    assert any(0 < size < len(whole) for size in sizes)
    code, output = server.run(argv("killed"))
    assert code == 0, output
    assert visible(store) == whole
    assert {path.name for path in store.iterdir()} == {"meta.json", *whole}
    one, two = (AttributionStore.open(tmp_path / name).meta for name in ("whole", "killed"))
    assert one["parameters"] == two["parameters"]
