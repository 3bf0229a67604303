import csv
import json

import numpy as np
import pytest

from fbk_xattn.analysis.deletion import evaluate
from fbk_xattn.cli.main import main
from fbk_xattn.store import AttributionStore, CurveStore, DecodedCurve, DecodedStep

HEADER = "id\taudio\tn_frames\tspeaker\tsrc_lang\tsrc_text\ttgt_lang\ttgt_text\n"


def make_folder(path, texts, mode="deletion", pair=("en", "en"), **parameters):
    """Write curves of three steps: id to the hypotheses."""
    parameters = {"mode": mode, "--deletion-map": "encoder", **parameters}
    with CurveStore.create(path, parameters) as store:
        for name, hypotheses in texts.items():
            steps = [
                DecodedStep(text, np.arange(2), np.zeros(2, dtype=np.float32), 0.0)
                for text in hypotheses
            ]
            store.write(
                DecodedCurve(
                    id=name, src_lang=pair[0], tgt_lang=pair[1], src_text="s", tgt_text="a b c d",
                    percentages=np.array([0, 50, 100]), n_removed=np.array([0, 2, 4]), n_units=4,
                    steps=tuple(steps),
                )
            )  # fmt: skip
    return store


@pytest.fixture
def folder(tmp_path):
    return make_folder(tmp_path / "out", {"u": ["a b c d", "a b", ""], "v": ["a b c d"] * 3})


def test_prints_the_area_from_0_to_100(folder, capsys):
    assert main(["evaluate", str(folder.path)]) == 0
    captured = capsys.readouterr()
    (row,) = [line.split() for line in captured.out.splitlines() if str(folder.path) in line]
    # 0, 25 and 50 percent of words are wrong.
    said = "deletion encoder encoder steps ASR en 2 wer_max 25.00 higher"
    assert row[1:] == said.split()
    assert captured.err == ""


def test_folders_that_were_decoded_otherwise_are_refused(folder, tmp_path, capsys):
    texts = {"u": ["a b c d", "a b", ""], "v": ["a b c d"] * 3}
    maps = {"--beam of the maps": 1, "--deletion-map": "input", "checkpoint SHA-256": "other"}
    alike = make_folder(tmp_path / "alike", texts, mode="insertion", **maps)
    assert main(["evaluate", str(folder.path), str(alike.path)]) == 0
    other = make_folder(tmp_path / "other", texts, **{"--beam": 5})
    assert main(["evaluate", str(folder.path), str(alike.path), str(other.path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{other.path}: --beam is 5, but None in {folder.path}" in line


@pytest.mark.parametrize("form", ["markdown", "latex", "terminal", "csv"])
def test_every_format_has_every_score(folder, capsys, form):
    flags = ["--score", "wer", "bleu", "wer", "--format", form]
    assert main(["evaluate", str(folder.path), *flags]) == 0
    out = capsys.readouterr().out
    assert "wer" in out
    assert "bleu" in out
    assert ("25.0" if form == "csv" else "25.00") in out


@pytest.mark.parametrize("suffix", [".csv", ".json"])
def test_output_is_the_curve(folder, capsys, tmp_path, suffix):
    file = tmp_path / "new" / f"curve{suffix}"
    assert main(["evaluate", str(folder.path), "--score", "wer_max", "--output", str(file)]) == 0
    assert "25.00" in capsys.readouterr().out
    with file.open() as handle:
        rows = list(csv.DictReader(handle)) if suffix == ".csv" else json.load(handle)
    (curve,) = evaluate(folder, ["wer_max"])
    assert [float(row["percentage"]) for row in rows] == [0, 50, 100]
    assert [float(row["value"]) for row in rows] == curve.scores.tolist()
    assert {float(row["auc"]) for row in rows} == {curve.auc}
    assert {row["units"] for row in rows} == {"encoder steps"}


def test_units_are_those_that_the_map_ranks(folder, capsys, tmp_path):
    cells = make_folder(tmp_path / "cells", {"u": [""] * 3}, **{"--deletion-map": "input"})
    paths = [str(folder.path), str(cells.path)]
    assert main(["evaluate", *paths, "--format", "markdown"]) == 0
    out = capsys.readouterr().out
    assert "| encoder | encoder steps | ASR en |" in out
    assert "| input | cells | ASR en |" in out
    assert "Only maps of the same units compare." in out


def test_folders_side_by_side_and_what_one_lacks(folder, capsys, tmp_path):
    other = make_folder(tmp_path / "ins", {"u": ["", "a b", "a b c d"]}, "insertion")
    assert main(["evaluate", str(folder.path), str(other.path)]) == 0
    captured = capsys.readouterr()
    assert "insertion" in captured.out
    assert captured.err == f"fbk-xattn: note: {other.path}: without 1 of 2: v\n"


def test_references_of_a_manifest(folder, capsys, tmp_path):
    manifest = tmp_path / "test.tsv"
    rows = [
        f"{name}\tx.wav\t9\ts\ten\tt\ten\t{text}\n" for name, text in (("u", "a b"), ("w", "c"))
    ]
    manifest.write_text(HEADER + "".join(rows))
    assert main(["evaluate", str(folder.path), "--manifest", str(manifest)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(
        f"fbk-xattn: error: {folder.path}: no reference for 1 of 2 utterances (v)"
    )


def test_rows_of_the_manifest_that_the_folder_lacks_are_noted(folder, capsys, tmp_path):
    manifest = tmp_path / "test.tsv"
    rows = [f"{name}\tx.wav\t9\ts\ten\tt\ten\ta b c d\n" for name in "uvw"]
    manifest.write_text(HEADER + "".join(rows))
    assert main(["evaluate", str(folder.path), "--manifest", str(manifest)]) == 0
    captured = capsys.readouterr()
    assert "25.00" in captured.out
    assert captured.err == f"fbk-xattn: note: {folder.path}: 1 of 3 rows are not there: w\n"


def test_wrong_folders_are_named(folder, capsys, tmp_path):
    AttributionStore.create(tmp_path / "maps", parameters={})
    empty = make_folder(tmp_path / "empty", {})
    for arguments, said in (
        (["/nowhere"], "/nowhere: not a folder of fairseq-generate --deletion or --insertion"),
        ([str(tmp_path / "maps")], "maps: is an attribution store, expected a folder of"),
        ([str(empty.path)], "no utterance in this folder"),
        ([str(folder.path), "--output", "x.txt"], "expected a name ending in .json or .csv"),
        ([str(folder.path), "--output", str(tmp_path)], "is a folder"),
        ([str(folder.path), "--score", "ter"], "'ter'"),
    ):
        assert main(["evaluate", *arguments]) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.count("\n") == 1
        assert said in captured.err


def test_a_folder_named_twice_is_an_error(folder, capsys):
    again = folder.path / ".." / folder.path.name
    assert main(["evaluate", str(folder.path), str(again)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert f"{again}: named twice" in captured.err
