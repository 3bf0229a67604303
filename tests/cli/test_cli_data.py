"""``fbk-xattn prompts``, ``prepare`` and ``models``."""

from __future__ import annotations

import pytest

from fbk_xattn.cli.main import main


def complaint(capsys, *arguments):
    """Return the one line that a refused command prints."""
    assert main([str(argument) for argument in arguments]) == 2
    captured = capsys.readouterr()
    assert not captured.out
    (line,) = captured.err.splitlines()
    return line


def test_prepare_wants_a_corpus(capsys, tmp_path):
    line = complaint(capsys, "prepare", tmp_path / "none", tmp_path / "data")
    assert "none: no such folder, expected one with manifests" in line
    assert not (tmp_path / "data").exists()


def test_prepare_wants_a_vocabulary(capsys, corpus, tmp_path):
    line = complaint(capsys, "prepare", corpus, tmp_path / "data", "--vocabulary-size", "3")
    assert "--vocabulary-size 3: expected at least 10" in line
    assert not (tmp_path / "data").exists()


def test_prepare_makes_a_data_folder(corpus, tmp_path):
    data = tmp_path / "data"
    assert main(["prepare", str(corpus), str(data), "--vocabulary-size", "60"]) == 0
    assert {path.name for path in data.iterdir()} == {
        "config.yaml", "dict.txt", "spm.model", "fbank80.zip", "train.tsv", "dev.tsv", "test.tsv",
    }  # fmt: skip


def test_prompts_wants_the_packages(capsys, tmp_path):
    line = complaint(capsys, "prompts", "--audio-dir", tmp_path, "--output", tmp_path / "corpus")
    assert "asterisk-core-sounds-en" in line
    assert not (tmp_path / "corpus").exists()


@pytest.mark.parametrize(
    ("preset", "millions"),
    [("base", 120.5), ("small", 474.8), ("large", 878.3)],
)
def test_models_have_the_published_sizes(capsys, preset, millions):
    assert main(["models"]) == 0
    (row,) = [line for line in capsys.readouterr().out.splitlines() if f"_{preset} " in line]
    counts = [float(cell.strip().rstrip("M")) for cell in row.split("|")[3:7]]
    assert counts[3] == pytest.approx(millions, rel=1e-3)
    assert sum(counts[:3]) == pytest.approx(counts[3], abs=0.02)
