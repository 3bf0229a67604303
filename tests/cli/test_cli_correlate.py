import csv
import io

import numpy as np
import pytest
from synthetic import make_attribution, make_store

from fbk_xattn.analysis import correlate
from fbk_xattn.cli.main import main
from fbk_xattn.report import render
from fbk_xattn.store import AttributionStore


@pytest.fixture
def store(rng, tmp_path):
    return make_store(tmp_path / "store", [make_attribution(rng, id=f"u{n}") for n in range(3)])


def test_prints_both_targets_in_markdown(store, capsys):
    assert main(["correlate", str(store.path)]) == 0
    captured = capsys.readouterr()
    tables = [correlate(store, target) for target in ("input", "encoder")]
    assert captured.out == render(tables, "markdown")
    assert captured.err == ""


@pytest.mark.parametrize("form", ["markdown", "csv", "latex"])
def test_target_aggregation_and_format(store, capsys, form):
    flags = ["--target", "input", "--aggregation", "1d-max-1d-avg", "--format", form]
    assert main(["correlate", str(store.path), *flags]) == 0
    assert capsys.readouterr().out == render([correlate(store, "input", "1d-max-1d-avg")], form)


def test_output_is_one_file_of_all_tables(store, capsys, tmp_path):
    file = tmp_path / "new" / "table.csv"
    flags = ["--target", "encoder", "input", "encoder", "--format", "csv", "--output", str(file)]
    assert main(["correlate", str(store.path), *flags]) == 0
    assert capsys.readouterr().out == ""
    rows = list(csv.DictReader(io.StringIO(file.read_text())))
    assert [row["target"] for row in rows] == ["encoder"] * 3 + ["input"] * 3
    assert float(rows[-1]["avg"]) == correlate(store, "input").mean[-1, -1]


def test_a_target_that_the_store_lacks_is_noted_by_default(rng, tmp_path, capsys):
    make_store(tmp_path, [make_attribution(rng, without=["encoder_saliency"])])
    assert main(["correlate", str(tmp_path)]) == 0
    captured = capsys.readouterr()
    assert captured.out.count("| avg |") == 2  # in the header and in the last row of one table
    assert captured.err == (
        "fbk-xattn: note: no encoder-output saliency in this store (--explain encoder saves it)\n"
    )


@pytest.mark.parametrize(
    ("without", "flags", "said"),
    [
        (["encoder_saliency"], ["--target", "input", "encoder"], "--explain encoder"),
        (["cross_attention"], [], "--save-cross-attention"),
        (
            ["cross_attention", "encoder_saliency", "input_saliency"],
            [],
            "--explain input encoder --save-cross-attention",
        ),
    ],
)
def test_a_missing_part_is_an_error_that_names_the_flag(
    rng, tmp_path, capsys, without, flags, said
):
    make_store(tmp_path / "store", [make_attribution(rng, without=without)])
    output = tmp_path / "table.md"
    assert main(["correlate", str(tmp_path / "store"), *flags, "--output", str(output)]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(f"fbk-xattn: error: {tmp_path / 'store'}: 1 utterances without ")
    assert captured.err.endswith(f" with {said}\n")
    assert not output.exists()


def test_every_utterance_without_a_correlation_is_named(rng, tmp_path, capsys):
    short = [make_attribution(rng, id=f"short{n}", S=2) for n in range(7)]
    bare = make_attribution(rng, id="bare", without=["cross_attention"])
    make_store(tmp_path, [make_attribution(rng, id="whole"), *short, bare])
    assert main(["correlate", str(tmp_path), "--target", "encoder", "encoder"]) == 0
    assert capsys.readouterr().err.splitlines() == [
        "fbk-xattn: note: encoder-output saliency: correlation undefined for 7 of 8: "
        "short0, short1, short2, short3, short4, short5, short6",
        "fbk-xattn: note: encoder-output saliency: 1 utterances left out: "
        "bare (no cross-attention)",
    ]


def test_no_defined_correlation_is_an_error(rng, tmp_path, capsys):
    make_store(tmp_path, [make_attribution(rng, id=name, S=3) for name in "ab"])
    assert main(["correlate", str(tmp_path)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "no correlation is defined for any of 2 utterances" in captured.err


def test_a_damaged_file_is_an_error_that_names_it(store, capsys):
    file = store.file("u1")
    file.write_bytes(file.read_bytes()[:100])
    assert main(["correlate", str(store.path)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"fbk-xattn: error: {file}: unreadable")
    assert captured.err.count("\n") == 1


def test_an_empty_store_is_an_error(tmp_path, capsys):
    AttributionStore.create(tmp_path, parameters={})
    assert main(["correlate", str(tmp_path)]) == 2
    assert "no utterance in this store" in capsys.readouterr().err


def test_a_folder_as_output_is_an_error_before_the_work(store, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(AttributionStore, "read", lambda *_: pytest.fail("read the store"))
    assert main(["correlate", str(store.path), "--output", str(tmp_path)]) == 2
    assert f"--output {tmp_path}: is a folder" in capsys.readouterr().err


def test_progress_is_shown_on_a_terminal_only(store, capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert main(["correlate", str(store.path)]) == 0
    assert capsys.readouterr().err == "\r1/3 utterances\r2/3 utterances\r3/3 utterances\n"


def test_correlations_of_the_store_are_not_those_of_one_utterance(store, capsys):
    """The mean over utterances reaches the output: neither the first nor the last of them does."""
    assert main(["correlate", str(store.path), "--format", "csv", "--target", "input"]) == 0
    row = next(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    values = correlate(store, "input").per_utterance[:, 0, 0]
    assert np.ptp(values) > 0.01
    assert float(row["head_1"]) == pytest.approx(values.mean(), abs=1e-12)
