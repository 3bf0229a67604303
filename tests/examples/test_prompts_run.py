"""``examples/prompts/run.sh`` says what it lacks before it does anything."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

RUN = Path(__file__).parents[2] / "examples" / "prompts" / "run.sh"


def run(*flags, path=None):
    environment = {**os.environ, **({"PATH": str(path)} if path else {})}
    return subprocess.run(
        [shutil.which("bash"), RUN, *map(str, flags)],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )


def test_without_apt_get_it_asks_for_a_folder(tmp_path):
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("dirname", "mkdir", "date", "nproc", "sed", "rm"):
        (tools / name).symlink_to(shutil.which(name))
    result = run("--work-dir", tmp_path / "work", path=tools)
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert "no apt-get here" in line
    assert "asterisk-core-sounds-it-g722" in line
    assert "--audio-dir" in line


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--audio-dir", "/no/such/folder"], "--audio-dir /no/such/folder: no such folder"),
        (["--masks", "3"], "unknown argument --masks"),
    ],
)
def test_wrong_arguments_are_named(flags, message):
    result = run(*flags)
    assert result.returncode == 2
    assert message in result.stderr


def test_help_lists_the_arguments():
    result = run("--help")
    assert result.returncode == 0
    for flag in ("--audio-dir", "--work-dir", "--num-masks", "--minutes"):
        assert flag in result.stdout
