"""``examples/prompts/study/results.py`` on made-up stores."""

from __future__ import annotations

import os
import shutil

import pytest
from study_stores import make_explained, make_study

from examples.prompts.study import measure, results
from examples.prompts.study.settings import CURVES, EXPLAINED, PAIRS

HEADINGS = [
    "Which of the paper's findings hold on this model",
    "Quality of the hypotheses (Table 5)",
    "Correlation by layer and head (Table 1)",
    "Correlation with input saliency by layer (Table 2)",
    "Correlation with encoder-output saliency by layer (Table 3)",
    "Correlation by voice",
    "Aggregation of input saliency (Table 4)",
    "Occlusion probability, dev split (Table 6)",
    "Deletion",
    "Size of the maps",
    "Convergence",
    "Precision",
]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folder of the stores, measured."""
    work = make_study(tmp_path_factory.mktemp("work"))
    assert results.main([str(work), "--output", str(work / "RESULTS.md")]) == 0
    return work


@pytest.fixture(scope="module")
def text(made):
    return (made / "RESULTS.md").read_text(encoding="utf-8")


@pytest.fixture
def work(made, tmp_path):
    """A copy to spoil."""
    shutil.copytree(made, tmp_path / "work")
    return tmp_path / "work"


def section(text, heading):
    return text.partition(f"## {heading}\n")[2].partition("\n## ")[0]


def row(text, *start):
    """Return the cells after the first ones of the only row that begins so."""
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]
    (found,) = [cells for cells in rows if cells[: len(start)] == list(start)]
    return found[len(start) :]


def test_every_section_is_there(text):
    headings = [line[3:] for line in text.splitlines() if line.startswith("## ")]
    assert headings == HEADINGS
    assert all("| --- |" in section(text, heading) for heading in HEADINGS)
    assert "nan" not in text


def test_the_head_says_what_the_numbers_are_of(text):
    assert "ASR en: 4, ASR it: 4, ST it-en: 4" in text
    assert "20,000 masks, occlusion probability 0.5 for the input and 0.7" in text
    assert "SHA-256 `abc`" in text


def test_quality_is_by_task_and_voice(text):
    quality = section(text, "Quality of the hypotheses (Table 5)")
    assert row(quality, "ASR en", "en_allison")[0] == "4"
    for voice, n in (("it_carlo", "2"), ("it_menardi", "2"), ("all", "4")):
        number, wer, bleu = row(quality, "ASR it", voice)
        assert (number, bleu) == (n, "-")
        assert wer == "16.7 [16.7, 16.7]"  # one word of six
    assert row(quality, "ST it-en", "all")[1] == "-"


def test_findings_have_the_verdicts_of_their_intervals(text):
    found = section(text, HEADINGS[0])
    *by_task, counts = row(
        found,
        "correlations with the encoder output exceed those with the input",
        "all layers and heads averaged, encoder output less input (2d-max)",
    )
    assert all(cell.endswith("] holds") for cell in by_task)
    assert counts == "3 / 0 / 0"
    random = [line for line in found.splitlines() if "the full map beats a random one" in line]
    assert random[0].count(" holds") == 3
    # Both maps were given the same curves.
    same = [line for line in found.splitlines() if line.startswith("| 2d-max beats 2d-avg")]
    assert same[0].count("0.0 [0.0, 0.0] undecided") == 3
    assert same[0].endswith("| 0 / 0 / 3 |")


def test_deletion_has_every_map_and_probability(text):
    deletion = section(text, "Deletion")
    # WER 0, 50 and 100 percent at 0, 50 and 100: with a random map, one word in six at 50.
    assert row(deletion, "input map, cells")[0] == "**50.0 [50.0, 50.0]**"
    assert row(deletion, "random map, cells")[0] == "33.3 [33.3, 33.3]"
    assert row(deletion, "nothing removed")[:2] == ["0.0", "0.0"]
    probabilities = section(text, "Occlusion probability, dev split (Table 6)")
    for p in (0.1, 0.3, 0.5, 0.7, 0.9):
        assert probabilities.count(f"\n| {p:g} |") == 2
    assert "With 20,000 masks.\n" in probabilities
    assert probabilities.count("| layer | 0.1 | 0.3 | 0.5 | 0.7 | 0.9 |") == 6


def test_convergence_is_of_two_seeds(text, made):
    found = section(text, "Convergence")
    medians = [
        float(row(found, "input saliency, cells", masks)[1])
        for masks in ("2,000", "5,000", "10,000", "20,000")
    ]
    assert medians == sorted(medians)
    assert medians[0] < 0.95 < medians[-1] < 1
    assert f"with a median of {medians[-1]:.3f}" in found
    assert f"]({results.FIGURE})" in found
    assert (made / results.FIGURE).read_bytes().startswith(b"\x89PNG")
    assert (made / results.FIGURE).stat().st_size < 150_000


def test_what_is_measured_is_enough(text, work, tmp_path):
    shutil.rmtree(work / "stores")
    shutil.rmtree(work / "deleted")
    assert results.main([str(work), "--output", str(tmp_path / "again.md")]) == 0
    assert (tmp_path / "again.md").read_text(encoding="utf-8") == text
    n_bytes = sum(file.stat().st_size for file in (work / "measured").iterdir())
    assert n_bytes < 1e6
    assert len(list((work / "measured").iterdir())) == len({*EXPLAINED, *CURVES, *PAIRS})


@pytest.mark.parametrize(
    ("folder", "name"), [("stores", "main"), ("stores", "n5000-2"), ("deleted", "delete-2d-avg")]
)
def test_what_is_missing_names_the_command_that_makes_it(work, capsys, folder, name):
    shutil.rmtree(work / folder / name)
    for file in (work / "measured").glob(f"*{name}*"):
        file.unlink()
    assert results.main([str(work), "--output", str(work / "other.md")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"examples/prompts/study/explain.sh --data DATA --model CKPT --work {work} " in line
    assert line.endswith(f" {name}")
    assert not (work / "other.md").exists()


def test_all_that_is_missing_is_named_at_once(tmp_path, capsys):
    make_explained(tmp_path, "main", 2)
    assert results.main([str(tmp_path), "--output", str(tmp_path / "other.md")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith(" ".join([*EXPLAINED[1:], *CURVES]))


def test_a_store_that_is_newer_is_measured_again(work):
    shutil.rmtree(work / "stores" / "main")
    make_explained(work, "main", 3)
    later = (work / "measured" / "main.npz").stat().st_mtime + 5
    os.utime(work / "stores" / "main", (later, later))
    assert len(measure.explained(work, "main").ids) == 9


def test_what_is_of_another_model_is_named(work, capsys):
    meta = work / "deleted" / "delete-encoder" / "meta.json"
    meta.write_text(meta.read_text().replace("abc", "xyz"))
    (work / "measured" / "delete-encoder.npz").unlink()
    assert results.main([str(work), "--output", str(work / "other.md")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: delete-encoder: checkpoint SHA-256 is xyz, but abc in main")


def test_probabilities_of_other_numbers_of_masks_do_not_compare(work, capsys):
    meta = work / "stores" / "p3" / "meta.json"
    meta.write_text(meta.read_text().replace("20000", "5000"))
    (work / "measured" / "p3.npz").unlink()
    assert results.main([str(work), "--output", str(work / "other.md")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "p1 20,000, p3 5,000, p5 20,000" in line


def test_a_damaged_measurement_is_named(work, capsys):
    shutil.rmtree(work / "stores" / "main")
    (work / "measured" / "main.npz").write_bytes(b"PK")
    assert results.main([str(work), "--output", str(work / "other.md")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "main.npz: unreadable" in line


def test_measuring_by_itself_reports_what_it_cannot(work, capsys):
    shutil.rmtree(work / "measured")
    for file in (work / "stores" / "p3").glob("*.npz"):
        file.unlink()
    assert measure.main([str(work), "--processes", "2"]) == 1
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    assert line.startswith(f"error: {work}/stores/p3: no utterance")
    n_measured = len({*EXPLAINED, *CURVES, *PAIRS}) - 1
    assert captured.out.startswith(f"{n_measured} measured")
