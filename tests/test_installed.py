"""``--user-dir fbk_xattn`` from any folder, as after a plain ``pip install``."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import fairseq

ROOT = Path(__file__).parents[1]


# What the console script fairseq-generate does; -c, unlike -m, keeps the folder off sys.path[0].
GENERATE = "import sys; from fairseq_cli.generate import cli_main; sys.exit(cli_main())"


def help_of_generate(folder, **environment):
    flags = ["DATA", "--user-dir", "fbk_xattn", "--task", "speech_to_text_ctc", "--path", "x"]
    return subprocess.run(
        [sys.executable, "-c", GENERATE, *flags, "--help"],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_from_a_checkout():
    result = help_of_generate(ROOT)
    assert result.returncode == 0, result.stderr
    assert "--attribution-dir" in result.stdout


def test_from_any_folder_where_it_is_installed_beside_fairseq(tmp_path):
    site = tmp_path / "site-packages"
    site.mkdir()
    (site / "fairseq").mkdir()  # of links: a linked folder's ".." would be the real one
    for entry in Path(fairseq.__file__).parent.iterdir():
        (site / "fairseq" / entry.name).symlink_to(entry)
    (site / "fbk_xattn").symlink_to(ROOT / "fbk_xattn")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    result = help_of_generate(elsewhere, PYTHONPATH=str(site))
    assert result.returncode == 0, result.stderr
    assert "--attribution-dir" in result.stdout
