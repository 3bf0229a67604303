"""A store that several processes write, some of them killed."""

import os
import shutil
import subprocess
import sys
import time
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pytest
from synthetic import make_attribution

from fbk_xattn.errors import InputError
from fbk_xattn.store import AttributionStore

ROOT = Path(__file__).parents[2]


def files(store):
    return sorted(p.name for p in store.path.iterdir())


RACE = """
import sys, time
from pathlib import Path
import numpy as np
sys.path[:0] = [{root!r}, {tests!r}]
from synthetic import make_attribution
from fbk_xattn.store import AttributionStore
path, number = Path(sys.argv[1]), int(sys.argv[2])
(path.parent / f"ready{{number}}").touch()
while not (path.parent / "go").exists():
    time.sleep(0.001)
store = AttributionStore.create(path, {{"seed": 1}}, {{"process": number}})
for i in range(5):
    store.write(make_attribution(np.random.default_rng(0), id=f"{{number}}.{{i}}"))
store.write(make_attribution(np.random.default_rng(0), id=f"{{number}}"))
"""


def start(script, *args):
    code = script.format(root=str(ROOT), tests=str(ROOT / "tests"))
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, args)], stderr=subprocess.PIPE, env=environment
    )


def test_processes_that_start_together_make_one_store(tmp_path):
    processes = [start(RACE, tmp_path / "store", number) for number in range(4)]
    deadline = time.monotonic() + 60
    while not all((tmp_path / f"ready{n}").exists() for n in range(4)):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    (tmp_path / "go").touch()
    for process in processes:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors.decode()
    store = AttributionStore.open(tmp_path / "store")
    assert store.meta["provenance"]["process"] in range(4)
    expected = sorted([*(f"{n}.{i}" for n in range(4) for i in range(5)), *map(str, range(4))])
    assert [a.id for a in store] == expected
    assert files(store) == sorted(["meta.json", *(f"{i}.npz" for i in expected)])


def test_create_does_not_replace_the_meta_of_a_process_that_was_faster(tmp_path, monkeypatch):
    """Both see no meta.json; the other one's appears before ours is put in its place."""
    link = os.link

    def slow(source, target, **options):
        if not Path(target).exists():
            Path(target).write_text(
                '{"format_version": 1, "parameters": {"seed": 2}, "provenance": {}}'
            )
        return link(source, target, **options)

    monkeypatch.setattr(os, "link", slow)
    with pytest.raises(InputError, match="the store has seed = 2, this run has 1"):
        AttributionStore.create(tmp_path, {"seed": 1})
    assert [p.name for p in tmp_path.iterdir()] == ["meta.json"]


def test_create_works_without_hard_links(tmp_path, monkeypatch):
    def unsupported(*_, **__):
        raise PermissionError("no hard links here")

    monkeypatch.setattr(os, "link", unsupported)
    store = AttributionStore.create(tmp_path, {"seed": 1})
    assert store.meta["parameters"] == {"seed": 1}
    assert files(store) == ["meta.json"]


@pytest.mark.parametrize("there_before", [False, True])
@pytest.mark.parametrize("half", [False, True])
def test_failed_write_changes_nothing(store, rng, monkeypatch, there_before, half):
    if there_before:
        store.write(make_attribution(rng, score=1.0))
    before = files(store)

    def full_disk(handle, **_):
        if half:
            handle.write(b"PK\x03\x04 and half of the rest")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", full_disk)
    with pytest.raises(OSError, match="No space left"):
        store.write(make_attribution(rng, score=2.0))
    assert files(store) == before
    assert ("a/1" in store) == there_before
    assert not there_before or store.read("a/1").score == 1.0


def test_file_is_complete_before_it_has_its_name(store, rng, monkeypatch):
    """What was written and flushed to the disk under another name is renamed, not copied."""
    fsync, flushed = os.fsync, []

    def recording(descriptor):
        fsync(descriptor)
        flushed.append((os.fstat(descriptor), "a/1" in store))

    monkeypatch.setattr(os, "fsync", recording)
    store.write(make_attribution(rng))
    ((status, there_already),) = flushed
    written = store.file("a/1").stat()
    assert (status.st_ino, status.st_size) == (written.st_ino, written.st_size)
    assert not there_already


KILLED = """
import os, sys
import numpy as np
sys.path[:0] = [{root!r}, {tests!r}]
from synthetic import make_attribution
from fbk_xattn.store import AttributionStore
def killed(handle, **_):
    handle.write(b"PK half")
    handle.flush()
    os._exit(9)
np.savez_compressed = killed
AttributionStore.create(sys.argv[1], {{}}).write(
    make_attribution(np.random.default_rng(0), id=sys.argv[2]))
"""


def test_process_killed_while_it_writes_leaves_no_utterance_and_its_rest_is_cleaned(tmp_path, rng):
    process = start(KILLED, tmp_path, "a/1")
    process.communicate(timeout=60)
    assert process.returncode == 9
    store = AttributionStore.open(tmp_path)
    (leftover,) = set(files(store)) - {"meta.json"}
    assert leftover.startswith(".")
    assert store.ids() == []
    assert "a/1" not in store
    store.write(make_attribution(rng, id="other"))
    assert leftover in files(store)  # it may be of a process that is still writing
    store.write(make_attribution(rng, id="a/1"))
    assert files(store) == ["a%2F1.npz", "meta.json", "other.npz"]


def test_writing_does_not_disturb_another_process_that_writes(store, rng, monkeypatch):
    """Ids of which one begins the other must not be taken for each other's leftovers."""
    savez = np.savez_compressed

    def interrupted(handle, **arrays_):
        monkeypatch.setattr(np, "savez_compressed", savez)
        store.write(make_attribution(rng, id="talk"))
        savez(handle, **arrays_)

    monkeypatch.setattr(np, "savez_compressed", interrupted)
    store.write(make_attribution(rng, id="talk.1"))
    assert store.ids() == ["talk", "talk.1"]


def test_two_processes_that_write_the_same_utterance_do_not_disturb_each_other(
    store, rng, monkeypatch
):
    fsync = os.fsync

    def slow(descriptor):
        """Wait until the other process, which runs elsewhere, has written all of it."""
        monkeypatch.setattr(os, "fsync", fsync)
        monkeypatch.setattr(os, "getpid", lambda: 7)
        store.write(make_attribution(rng))
        monkeypatch.undo()
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", slow)
    store.write(make_attribution(rng))
    assert files(store) == ["a%2F1.npz", "meta.json"]
    assert store.read("a/1").id == "a/1"


def test_a_folder_that_vanishes_while_an_utterance_is_written_is_an_error(store, rng, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda _: shutil.rmtree(store.path))
    with pytest.raises(FileNotFoundError):
        store.write(make_attribution(rng))


def test_leftovers_of_utterances_that_are_there_are_removed_at_the_next_start(store, rng):
    """A process that is killed right after the rename cannot clean up what another one left."""
    store.write(make_attribution(rng, id="there"))
    leftovers = []
    for name in ("there.npz", "missing.npz"):
        mark = blake2b(name.encode(), digest_size=16).hexdigest()
        leftovers.append(store.path / f".{mark}.host.7.tmp")
    for leftover in (*leftovers, store.path / ".meta.json.host.7.tmp"):
        leftover.write_text("half")
    AttributionStore.create(store.path, store.meta["parameters"])
    # The other one may be of a process that is still writing.
    assert files(store) == sorted([leftovers[1].name, "meta.json", "there.npz"])


def test_a_meta_file_that_does_not_fit_on_the_disk_is_not_put_in_place(tmp_path, monkeypatch):
    def full_disk(self, *_, **__):
        self.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full_disk)
    with pytest.raises(InputError, match=r"cannot write there \(No space left on device\)"):
        AttributionStore.create(tmp_path / "store", {"seed": 1})
    assert not list((tmp_path / "store").iterdir())


def test_a_temporary_meta_file_taken_for_a_leftover_is_no_error(tmp_path, monkeypatch):
    def faster(source, target, **_):
        Path(source).unlink()
        Path(target).write_text('{"format_version": 1, "parameters": {"seed": 1}}')
        raise FileNotFoundError("no such file")

    monkeypatch.setattr(os, "link", faster)
    assert AttributionStore.create(tmp_path, {"seed": 1}).meta["parameters"] == {"seed": 1}
