"""``prepare`` with several processes, some of which die."""

import os
import signal
import subprocess
import time

import numpy as np
import pytest

from fbk_xattn.data import prepare as module
from fbk_xattn.data.manifest import read_manifest
from fbk_xattn.data.prepare import prepare, write_features
from fbk_xattn.errors import InputError
from fbk_xattn.files import temporary_file


def test_the_archive_does_not_depend_on_the_number_of_processes(corpus, data, tmp_path):
    prepare(corpus, tmp_path, vocabulary=data, workers=3)
    assert (tmp_path / "fbank80.zip").read_bytes() == (data / "fbank80.zip").read_bytes()


def test_a_process_that_is_killed_ends_the_run(corpus, tmp_path, monkeypatch):
    def killed(_):
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(module, "load_features", killed)
    with pytest.raises(InputError, match=r"a process .* died .* expected fewer --workers than 2"):
        prepare(corpus, tmp_path / "data", vocabulary=60, workers=2)
    assert list((tmp_path / "data").iterdir()) == []


def test_no_more_is_computed_than_is_soon_written(tmp_path, monkeypatch):
    def counted(path):
        (tmp_path / f"{path.name}.computed").touch()
        return np.zeros((1, 80), dtype=np.float32)

    monkeypatch.setattr(module, "load_features", counted)
    names = [str(number) for number in range(400)]
    with module._computed(tmp_path, names, workers=2) as computed:
        next(computed)
        time.sleep(0.5)  # in which all could be
    assert len(list(tmp_path.glob("*.computed"))) <= 400 / 2


def test_what_a_dead_process_left_of_the_archive_is_removed(corpus, tmp_path):
    with subprocess.Popen(["true"]) as process:
        process.wait()
    mine = temporary_file(tmp_path / "fbank80.zip").name
    dead = tmp_path / mine.replace(f".{os.getpid()}.", f".{process.pid}.")
    running = tmp_path / mine.replace(f".{os.getpid()}.", f".{os.getppid()}.")
    for path in (dead, running):
        path.touch()
    (row,) = (row for row in read_manifest(corpus / "test.tsv") if row.id == "test/3")
    write_features(corpus, {row.audio: row.n_frames}, tmp_path)
    assert not dead.exists()
    assert running.exists()
