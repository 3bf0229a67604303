"""``scripts/chromium.sh`` says in one line that it cannot install a browser; tests go on."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "scripts" / "chromium.sh"


def source(tools, **programs):
    """Source the script with these programs and a few of the system's alone."""
    tools.mkdir()
    for name in ("mktemp", "rm", "grep", "id"):
        if name not in programs:
            (tools / name).symlink_to(shutil.which(name))
    for name, text in programs.items():
        (tools / name).write_text(f"#!{shutil.which('bash')}\n{text}\n")
        (tools / name).chmod(0o755)
    return subprocess.run(
        [shutil.which("bash"), "-euo", "pipefail", "-c", f"source {SCRIPT}; echo went on"],
        env={"PATH": str(tools)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_what_is_there_is_left_alone(tmp_path):
    result = source(tmp_path / "bin", chromium="", chromedriver="")
    assert (result.returncode, result.stdout, result.stderr) == (0, "went on\n", "")


def test_an_apt_get_that_fails_is_named_in_one_line(tmp_path):
    failing = {"id": "echo 0", "apt-get": "echo 'E: no network' >&2; exit 100"}
    result = source(tmp_path / "bin", **failing)
    assert result.returncode == 0
    assert result.stdout.endswith("went on\n")
    (line,) = result.stderr.splitlines()
    assert "browser tests are skipped" in line
    assert "E: no network" in line


def test_without_root_nothing_is_tried(tmp_path):
    result = source(tmp_path / "bin", id="echo 1000", **{"apt-get": "echo tried >&2; exit 1"})
    assert result.returncode == 0
    (line,) = result.stderr.splitlines()
    assert "needs root and apt-get" in line
