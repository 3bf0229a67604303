import os
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from synthetic import make_attribution

from fbk_xattn.data.features import load_features
from fbk_xattn.errors import InputError
from fbk_xattn.files import reading_arrays, temporary_file, whole_file, write_text
from fbk_xattn.store import AttributionStore


def test_text_replaces_what_was_there(tmp_path):
    file = tmp_path / "new" / "table.md"
    write_text(file, "old\n")
    write_text(file, "Wörter\n")
    assert file.read_bytes() == "Wörter\n".encode()
    assert list(file.parent.iterdir()) == [file]


def test_who_is_reading_the_old_file_reads_it_to_its_end(tmp_path):
    file = tmp_path / "table.md"
    file.write_text("old")
    with file.open() as reader:
        write_text(file, "new")
        assert reader.read() == "old"


def test_an_exception_leaves_the_old_file_and_nothing_else(tmp_path):
    file = tmp_path / "table.md"
    file.write_text("old")
    with pytest.raises(KeyError), whole_file(file) as temporary:  # noqa: PT012
        temporary.write_text("half")
        raise KeyError
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(InputError, match="is a folder, expected the name of a file"):
        write_text(tmp_path, "text")


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"table\.md: cannot be written .*writable"):
        write_text(tmp_path / "file" / "table.md", "text")


def test_a_link_stays_and_what_it_points_at_is_replaced(tmp_path):
    link, file = tmp_path / "link.md", tmp_path / "folder" / "table.md"
    link.symlink_to(file)
    for text in ("of a file that was not there", "of one that was"):
        write_text(link, text)
        assert link.is_symlink()
        assert file.read_text() == text
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["folder", "link.md", "table.md"]


def test_what_a_killed_process_left_of_the_same_file_is_removed(tmp_path):
    file = tmp_path / "table.md"
    killed = subprocess.Popen([sys.executable, "-c", ""])
    killed.wait()

    def temporary(name, pid):
        return temporary_file(tmp_path / name).name.replace(f".{os.getpid()}.", f".{pid}.")

    gone, running = temporary("table.md", killed.pid), temporary("table.md", os.getppid())
    elsewhere = gone.replace(f".{socket.gethostname()}.", ".elsewhere.")
    other = temporary("other.md", killed.pid)
    for name in (gone, running, elsewhere, other):
        (tmp_path / name).write_text("half")
    write_text(file, "text")
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"table.md", running, elsewhere, other}


def test_a_file_may_have_a_long_name(tmp_path):
    write_text(tmp_path / ("x" * 250), "text")
    assert (tmp_path / ("x" * 250)).read_text() == "text"


@pytest.mark.parametrize("through_a_link", [False, True])
def test_what_is_no_regular_file_is_refused_and_stays(tmp_path, through_a_link):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    (tmp_path / "link").symlink_to(pipe)
    with pytest.raises(InputError, match="is no regular file, expected the name of a file"):
        write_text(tmp_path / "link" if through_a_link else pipe, "text")
    assert pipe.is_fifo()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "pipe"]


def test_one_thread_at_a_time_reads_arrays(tmp_path, monkeypatch):
    """In some releases of CPython numpy's parsing of headers fails in two threads at once."""
    np.save(tmp_path / "features.npy", np.zeros((3, 80), dtype=np.float32))
    store = AttributionStore.create(tmp_path / "store", {})
    attribution = make_attribution(np.random.default_rng(0))
    store.write(attribution)
    load, inside, most = np.load, [], []

    def slow_load(*args, **kwargs):
        inside.append(1)
        time.sleep(0.01)
        most.append(len(inside))
        inside.pop()
        return load(*args, **kwargs)

    monkeypatch.setattr(np, "load", slow_load)
    with ThreadPoolExecutor(2) as threads:
        some = [threads.submit(load_features, tmp_path / "features.npy") for _ in range(5)]
        others = [threads.submit(store.read, attribution.id) for _ in range(5)]
        assert all(job.result() is not None for job in [*some, *others])
    assert most == [1] * 10


def test_a_fork_while_another_thread_reads_can_read():
    begun, end = threading.Event(), threading.Event()

    def read():
        with reading_arrays():
            begun.set()
            end.wait(5)

    thread = threading.Thread(target=read)
    thread.start()
    begun.wait()
    threading.Timer(0.1, end.set).start()
    child = os.fork()  # waits for the thread
    if not child:
        with reading_arrays():
            os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    thread.join()
