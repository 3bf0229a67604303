import dataclasses
import re

import numpy as np
import pytest
from synthetic import make_attribution

from fbk_xattn.analysis import correlate
from fbk_xattn.cli.main import main
from fbk_xattn.store import AttributionStore

PARAMETERS = {
    "checkpoint SHA-256": "x",
    "--num-masks": 10,
    "--input-occlusion-probability": 0.5,
    "--encoder-occlusion-probability": 0.7,
}


@pytest.fixture
def make(tmp_path):
    def make_named(
        name, seed=0, without=(), checkpoint="x", tgt_text="paar Wörter", data=0, **changed
    ):
        rng = np.random.default_rng(seed)
        flags = {f"--{key.replace('_', '-')}": value for key, value in changed.items()}
        parameters = PARAMETERS | flags | {"checkpoint SHA-256": checkpoint}
        with AttributionStore.create(tmp_path / name, parameters) as store:
            for number, target in enumerate(("en", "en", "it", "it")):
                store.write(
                    make_attribution(
                        rng,
                        id=f"u{number}",
                        tgt_lang=target,
                        without=without,
                        tgt_text=tgt_text,
                        fbank=np.random.default_rng([data, number]).standard_normal((22, 5)),
                    )
                )
        return str(store.path)

    return make_named


def tables(folder):
    """Return the text of each table of the Markdown file, by its number."""
    text = (folder / "tables.md").read_text(encoding="utf-8")
    parts = re.split(r"^## Table (\d): .*$", text, flags=re.MULTILINE)
    return {int(number): part for number, part in zip(parts[1::2], parts[2::2], strict=True)}


def columns(text):
    return [line.split(" | ")[1:] for line in text.splitlines() if line.startswith("| layer")]


def test_all_tables_of_two_models_and_a_sweep(make, tmp_path, capsys):
    stores = [
        make("p3", 1, input_occlusion_probability=0.3),
        make("base", 2),
        make("small", 3, checkpoint="y"),
    ]
    out = tmp_path / "new" / "out"
    assert main(["tables", *stores, "--output", str(out)]) == 0
    assert capsys.readouterr().out.splitlines() == [f"{out}/tables.md", f"{out}/tables.tex"]
    found = tables(out)
    assert sorted(found) == [1, 2, 3, 4, 5, 6]
    # Two targets, two tasks, two models; of the sweep the store with the paper's probability, and
    # for the encoder output, where both have it, the first.
    assert found[1].count("Pearson correlation") == 8
    names = [["base: ASR en", "base: ST en-it", "small: ASR en", "small: ST en-it |"]]
    assert columns(found[2]) == names
    assert columns(found[3]) == [[name.replace("base", "p3") for name in names[0]]]
    assert columns(found[4]) == [["2d-max", "2d-avg", "1d-max-1d-avg |"]] * 4
    assert found[5].count("| base |") == 2
    assert columns(found[6]) == [["0.3", "0.5 |"]] * 2
    expected = correlate(AttributionStore.open(stores[1]), "input").by_task()["ASR en"].mean[-1, -1]
    overall = next(line for line in found[2].splitlines() if line.startswith("| overall"))
    assert overall.split(" | ")[1].startswith(f"{expected:z.3f} [")


def test_stores_of_other_audio_with_the_same_ids_are_all_there(make, tmp_path):
    """Clean and noisy audio of one test set; a sweep has one audio."""
    stores = [
        make("clean", 1),
        make("clean3", 2, input_occlusion_probability=0.3),
        make("noisy", 3, data=1),
        make("noisy3", 4, data=1, input_occlusion_probability=0.3),
    ]
    assert main(["tables", *stores, "--output", str(tmp_path / "out")]) == 0
    found = tables(tmp_path / "out")
    names = ["clean: ASR en", "clean: ST en-it", "noisy: ASR en", "noisy: ST en-it |"]
    assert columns(found[2]) == [names]
    assert columns(found[6]) == [["0.3", "0.5 |"]] * 4
    assert "clean, clean3: ASR en" in found[6]
    assert "noisy, noisy3: ST en-it" in found[6]


def test_stores_that_are_alike_have_columns_of_their_own(make, tmp_path):
    stores = [make("a", 1), make("b", 2), make("p3", 3, input_occlusion_probability=0.3)]
    assert main(["tables", *stores, "--output", str(tmp_path / "out")]) == 0
    found = tables(tmp_path / "out")
    names = ["a: ASR en", "a: ST en-it", "b: ASR en", "b: ST en-it |"]
    assert columns(found[2]) == columns(found[3]) == [names]
    assert "a, p3: ASR en" in found[6]


def test_a_sweep_of_the_encoder_does_not_hide_that_of_the_input(make, tmp_path):
    stores = [
        make("a", 1, input_occlusion_probability=0.3),
        make("b", 2),
        make("c", 3, encoder_occlusion_probability=0.3),
    ]
    assert main(["tables", *stores, "--output", str(tmp_path / "out")]) == 0
    found = tables(tmp_path / "out")[6]
    assert "a, b: ASR en" in found
    assert "a, c: ASR en" in found


def test_a_sweep_whose_stores_have_other_tasks_is_refused_in_one_line(make, tmp_path, capsys):
    stores = [make("a"), make("b", 1, input_occlusion_probability=0.3)]
    store = AttributionStore.open(stores[1])
    for name in ("u2", "u3"):
        store.write(dataclasses.replace(store.read(name), cross_attention=None))
    assert main(["tables", *stores, "--output", str(tmp_path / "out")]) == 2
    assert "b: without 2 utterances of the other stores (u2, u3)" in capsys.readouterr().err


def test_what_is_left_out_is_said(make, tmp_path):
    store = AttributionStore.open(make("a"))
    store.write(dataclasses.replace(store.read("u2"), encoder_saliency=None))
    assert main(["tables", str(store.path), "--output", str(tmp_path / "out")]) == 0
    found = tables(tmp_path / "out")
    left_out = "Left out: 1 utterance (`u2`: no encoder-output saliency)."
    assert [found[number].count(left_out) for number in (1, 2, 3, 4)] == [1, 0, 1, 0]


def test_latex_has_the_same_tables_with_labels_of_their_own(make, tmp_path):
    stores = [make("a"), make("b", 1, input_occlusion_probability=0.3)]
    assert main(["tables", *stores, "--output", str(tmp_path / "out")]) == 0
    text = (tmp_path / "out" / "tables.tex").read_text(encoding="utf-8")
    labels = re.findall(r"\\label{(.*)}", text)
    assert len(labels) == len(set(labels)) == text.count(r"\begin{table}")
    assert re.findall(r"^% Table (\d)", text, re.MULTILINE) == list("123456")


def test_what_is_not_there_says_what_it_needs(make, tmp_path, capsys):
    store = make("a", without=["encoder_saliency"], tgt_text="")
    assert main(["tables", store, "--output", str(tmp_path / "out")]) == 0
    found = tables(tmp_path / "out")
    assert "needs a run of fairseq-generate with --explain encoder" in found[3]
    assert "needs a reference of every utterance" in found[5]
    assert "needs stores that differ in nothing but occlusion probability" in found[6]
    err = capsys.readouterr().err
    assert "no encoder-output saliency in this store" in err
    assert "Table 5 is without a: " in err


def test_other_explanations_are_refused_before_the_work(make, tmp_path, capsys, monkeypatch):
    stores = [make("a"), make("b", 1, num_masks=20)]
    monkeypatch.setattr(AttributionStore, "read", lambda *_: pytest.fail("read the store"))
    assert main(["tables", *stores, "--output", str(tmp_path / "out")]) == 2
    assert "--num-masks is 20, but 10 in" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_file_as_output_is_an_error(make, tmp_path, capsys):
    (tmp_path / "file").touch()
    assert main(["tables", make("a"), "--output", str(tmp_path / "file")]) == 2
    assert "is a file, expected a folder" in capsys.readouterr().err
