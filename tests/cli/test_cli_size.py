import csv
import io

import pytest
from synthetic import as_segments, make_attribution, make_store

from fbk_xattn.analysis.size import size
from fbk_xattn.cli.main import main


@pytest.fixture
def store(rng, tmp_path):
    return make_store(tmp_path / "maps", [make_attribution(rng, id=f"u{n}") for n in range(3)])


def test_prints_the_size_of_each_store(rng, store, tmp_path, capsys):
    other = make_store(tmp_path / "other", [make_attribution(rng)])
    assert main(["size", str(store.path), str(other.path)]) == 0
    captured = capsys.readouterr()
    for one in (store, other):
        (line,) = [line for line in captured.out.splitlines() if line.startswith(one.path.name)]
        assert line.split()[1:] == [str(len(one)), f"{size(one).auc:.2f}"]
    assert captured.err == ""


def test_csv_is_the_curve(store, capsys):
    assert main(["size", str(store.path), "--format", "csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [float(row["value"]) for row in rows] == size(store).mean.tolist()
    assert (rows[0]["threshold"], rows[-1]["threshold"]) == ("0.0", "1.0")


def test_what_is_left_out_or_undefined_is_noted(rng, tmp_path, capsys):
    dense = rng.random((7, 22, 5))
    dense[1] = dense[2] = 0.5
    flat = make_attribution(rng, id="flat", input_saliency=as_segments(dense))
    bare = make_attribution(rng, id="bare", without=["input_saliency"])
    make_store(tmp_path, [flat, bare])
    assert main(["size", str(tmp_path)]) == 0
    first, second = capsys.readouterr().err.splitlines()
    assert first.endswith(
        "1 utterances left out without input saliency (--explain input saves it): bare"
    )
    assert second.endswith(
        "2 tokens whose map is one number everywhere count as 0 percent, in flat"
    )


def test_a_store_without_the_map_is_an_error(rng, tmp_path, capsys):
    make_store(tmp_path, [make_attribution(rng, without=["input_saliency"])])
    assert main(["size", str(tmp_path)]) == 2
    assert capsys.readouterr().err.endswith("fairseq-generate with --explain input\n")


def test_progress_is_shown_on_a_terminal_only(store, capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert main(["size", str(store.path)]) == 0
    assert capsys.readouterr().err == "\r1/3 utterances\r2/3 utterances\r3/3 utterances\n"
