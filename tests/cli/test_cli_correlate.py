import csv
import dataclasses
import io
import json
from pathlib import Path

import numpy as np
import pytest
from synthetic import make_attribution, make_store

from fbk_xattn.analysis import AGGREGATIONS, Bootstrap, correlate
from fbk_xattn.cli.main import main
from fbk_xattn.report import render
from fbk_xattn.store import AttributionStore


@pytest.fixture
def store(rng, tmp_path):
    return make_store(tmp_path / "store", [make_attribution(rng, id=f"u{n}") for n in range(3)])


def test_prints_both_targets_for_the_terminal(store, capsys):
    assert main(["correlate", str(store.path)]) == 0
    captured = capsys.readouterr()
    tables = [correlate(store, target) for target in ("input", "encoder")]
    assert captured.out == render(tables, "terminal")
    assert captured.err == ""


@pytest.mark.parametrize("form", ["terminal", "markdown", "csv", "latex"])
def test_target_aggregation_and_format(store, capsys, form):
    flags = ["--target", "input", "--aggregation", "1d-max-1d-avg", "--format", form]
    assert main(["correlate", str(store.path), *flags]) == 0
    assert capsys.readouterr().out == render([correlate(store, "input", "1d-max-1d-avg")], form)


def test_output_has_the_numbers_of_every_utterance(store, capsys, tmp_path):
    file = tmp_path / "new" / "numbers.csv"
    flags = ["--target", "encoder", "input", "encoder", "--output", str(file)]
    assert main(["correlate", str(store.path), *flags]) == 0
    assert "encoder-output saliency" in capsys.readouterr().out
    rows = list(csv.DictReader(io.StringIO(file.read_text())))
    assert [row["target"] for row in rows] == ["encoder"] * 36 + ["input"] * 36
    values = correlate(store, "input").per_utterance
    assert [float(row["correlation"]) for row in rows[36:]] == values.ravel().tolist()
    last = rows[-1]
    assert (last["store"], last["utterance"], last["layer"], last["head"]) == (
        "store", "u2", "avg", "avg",
    )  # fmt: skip


def test_output_as_json_has_means_and_intervals_and_null_for_undefined(rng, tmp_path):
    attributions = [make_attribution(rng, id=f"u{n}") for n in range(3)]
    attributions[1].cross_attention[0, 0] = 0.2
    store = make_store(tmp_path / "store", attributions)
    file = tmp_path / "numbers.json"
    flags = ["--target", "input", "--seed", "4", "--resamples", "100", "--output", str(file)]
    assert main(["correlate", str(store.path), *flags]) == 0
    numbers = json.loads(file.read_text())
    assert numbers["bootstrap"] == {"resamples": 100, "level": 0.95, "seed": 4}
    (saved,) = numbers["tables"]
    table = correlate(store, "input")
    assert saved["mean"] == table.mean.tolist()
    assert [saved["low"], saved["high"]] == table.interval(Bootstrap(100, seed=4)).tolist()
    assert saved["per_utterance"][1][0][0] is None
    assert saved["n_undefined"][0] == [1, 0, 0, 0]
    assert saved["ids"] == ["u0", "u1", "u2"]


def test_output_of_another_kind_is_an_error_before_the_work(store, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(AttributionStore, "read", lambda *_: pytest.fail("read the store"))
    assert main(["correlate", str(store.path), "--output", str(tmp_path / "x.txt")]) == 2
    assert "expected a name ending in .json or .csv" in capsys.readouterr().err


def test_a_target_that_the_store_lacks_is_noted_by_default(rng, tmp_path, capsys):
    make_store(tmp_path, [make_attribution(rng, without=["encoder_saliency"])])
    assert main(["correlate", str(tmp_path)]) == 0
    captured = capsys.readouterr()
    assert captured.out.count("avg") == 2  # in the header and in the last row of one table
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
    output = tmp_path / "numbers.json"
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


PARAMETERS = {
    "checkpoint SHA-256": "x",
    "--num-masks": 10,
    "--input-occlusion-probability": 0.5,
    "--encoder-occlusion-probability": 0.7,
}


@pytest.fixture
def make(tmp_path):
    """Write a store of four utterances of two tasks, with parameters."""

    def make_named(name, seed=0, without=(), data=0, **changed):
        rng = np.random.default_rng(seed)
        changed = {f"--{key.replace('_', '-')}": value for key, value in changed.items()}
        with AttributionStore.create(tmp_path / name, PARAMETERS | changed) as store:
            for number, target in enumerate(("en", "en", "it", "it")):
                fbank = np.random.default_rng([data, number]).standard_normal((22, 5))
                store.write(
                    make_attribution(
                        rng, id=f"u{number}", tgt_lang=target, without=without, fbank=fbank
                    )
                )
        return str(store.path)

    return make_named


def records(capsys, *arguments):
    assert main(["correlate", *arguments, "--format", "csv"]) == 0
    return list(csv.DictReader(io.StringIO(capsys.readouterr().out)))


def test_by_layers_has_a_column_a_store_and_task(make, capsys):
    first, second = make("a"), make("b", seed=1, checkpoint="other")
    rows = records(capsys, first, second, "--by", "layers")
    assert len(rows) == 2 * 4 * 3
    for target in ("input", "encoder"):
        columns = dict.fromkeys(row["column"] for row in rows if row["target"] == target)
        assert list(columns) == ["a: ASR en", "a: ST en-it", "b: ASR en", "b: ST en-it"]
    part = correlate(AttributionStore.open(second), "input").by_task()["ST en-it"]
    of_part = [r for r in rows if r["target"] == "input" and r["column"] == "b: ST en-it"]
    assert [float(row["correlation"]) for row in of_part] == part.mean[:, -1].tolist()
    assert [row["layer"] for row in of_part] == ["1", "2", "overall"]


def test_by_layers_of_one_store_names_the_tasks_alone(make, capsys):
    rows = records(capsys, make("a"), "--by", "layers", "--target", "input")
    assert list(dict.fromkeys(row["task"] for row in rows)) == ["ASR en", "ST en-it"]


@pytest.mark.parametrize(("checkpoint", "word"), [("other", "model"), ("same", "store")])
def test_by_layers_of_one_task_says_what_varies(rng, tmp_path, capsys, checkpoint, word):
    stores = [
        make_store(tmp_path / name, [make_attribution(rng)], **{"checkpoint SHA-256": model})
        for name, model in (("a", "same"), ("b", checkpoint))
    ]
    assert main(["correlate", *(str(store.path) for store in stores), "--by", "layers"]) == 0
    assert f"By {word}, of each layer" in capsys.readouterr().out


def test_by_layers_refuses_other_explanations_unless_they_are_varied(make, capsys):
    stores = [make("a"), make("b", seed=1, num_masks=20)]
    assert main(["correlate", *stores, "--by", "layers"]) == 2
    assert "--num-masks is 20, but 10 in" in capsys.readouterr().err
    rows = records(capsys, *stores, "--by", "layers", "--vary", "num-masks")
    assert {"a (num-masks 10): ASR en", "b (num-masks 20): ASR en"} <= {r["column"] for r in rows}


def test_by_layers_takes_a_store_that_explains_one_target_alone(make, capsys):
    part = make("b", seed=1, without=["encoder_saliency"], explain=["input"])
    meta = Path(part) / "meta.json"
    meta.write_text(meta.read_text().replace('"--encoder-occlusion-probability": 0.7,', ""))
    rows = records(capsys, make("a", explain=["input", "encoder"]), part, "--by", "layers")
    columns = {(row["target"], row["column"][0]) for row in rows}
    assert columns == {("input", "a"), ("input", "b"), ("encoder", "a")}


def test_by_aggregation_has_all_of_them_for_the_input(make, capsys):
    store = make("a")
    rows = records(capsys, store, "--by", "aggregation")
    assert list(dict.fromkeys(row["aggregation"] for row in rows)) == list(AGGREGATIONS)
    for how in AGGREGATIONS:
        expected = correlate(AttributionStore.open(store), "input", how).mean[:, -1].tolist()
        assert [float(r["correlation"]) for r in rows if r["aggregation"] == how] == expected


def test_by_probability_has_the_target_that_varies(make, capsys):
    stores = [make("a", 1), make("b", 2, input_occlusion_probability=0.3)]
    rows = records(capsys, *stores, "--by", "probability")
    assert {row["target"] for row in rows} == {"input"}
    assert [row["occlusion probability"] for row in rows] == ["0.3"] * 3 + ["0.5"] * 3
    expected = correlate(AttributionStore.open(stores[1]), "input").mean[-1, -1]
    assert float(rows[2]["correlation"]) == expected


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"num_masks": 20, "input_occlusion_probability": 0.3}, "--num-masks is 20, but 10 in"),
        ({}, "the same in a, b, expected stores that differ in one with --by probability"),
    ],
)
def test_by_probability_refuses_what_differs_in_more_or_less(make, capsys, changed, said):
    assert main(["correlate", make("a"), make("b", **changed), "--by", "probability"]) == 2
    assert said in capsys.readouterr().err


def test_by_probability_refuses_other_audio_of_the_same_ids(make, capsys):
    stores = [make("a"), make("b", data=1, input_occlusion_probability=0.3)]
    assert main(["correlate", *stores, "--by", "probability"]) == 2
    captured = capsys.readouterr()
    assert f"{stores[1]}: utterance 'u0' has other features than in {stores[0]}" in captured.err
    assert captured.err.count("\n") == 1


def test_by_tokens_has_layers_and_groups(make, capsys):
    rows = records(capsys, make("a"), "--by", "tokens", "--target", "encoder")
    assert [row["group"] for row in rows[:4]] == ["all", "layer 1", "layer 2", "start of a word"]
    assert [int(row["n_tokens"]) for row in rows[:4]] == [20] * 4
    assert float(rows[0]["q05"]) <= float(rows[0]["q50"]) <= float(rows[0]["q95"])


def test_by_tokens_joins_them_to_words(rng, tmp_path, capsys):
    tokens = ("<lang:de>", "▁ein", "▁Wo", "rt", "▁es", "ist", "</s>")
    store = make_store(tmp_path / "store", [make_attribution(rng, tokens=tokens)])
    flags = ["--by", "tokens", "--target", "encoder", "--words", "max"]
    assert main(["correlate", str(store.path), *flags]) == 0
    printed = capsys.readouterr().out
    assert "3 words of 1 utterance" in printed
    assert "joined by their max" in printed
    assert "inside a word" not in printed
    rows = records(capsys, str(store.path), *flags)
    assert {row["words"] for row in rows} == {"max"}
    assert [int(row["n_tokens"]) for row in rows[:3]] == [3] * 3


def test_words_are_for_tokens(store, capsys):
    assert main(["correlate", str(store.path), "--words", "mean"]) == 2
    assert "--words with --by heads: expected --by tokens" in capsys.readouterr().err


def test_words_need_the_mark_of_their_start(rng, tmp_path, capsys):
    tokens = ("<lang:de>", *"abcde", "</s>")
    store = make_store(tmp_path / "store", [make_attribution(rng, tokens=tokens)])
    assert main(["correlate", str(store.path), "--by", "tokens"]) == 0
    capsys.readouterr()
    file = str(tmp_path / "out.png")
    for command in (
        ["correlate", "--by", "tokens"],
        ["report", "-o", str(tmp_path / "out.html")],
        ["plot", "--figure", "tokens", "--output", file],
        ["plot", "--figure", "saliency", "--all", "--output", file],
    ):
        assert main([command[0], str(store.path), *command[1:], "--words", "mean"]) == 2
        captured = capsys.readouterr()
        assert f"{store.path}: no token begins with '\N{LOWER ONE EIGHTH BLOCK}'" in captured.err
        assert captured.err.count("\n") == 1


def test_by_tokens_without_a_defined_correlation_is_an_error(rng, tmp_path, capsys):
    flat = {name: np.ones((7, 6), dtype=np.float32) for name in ("encoder_saliency",)}
    attribution = make_attribution(rng, without=["input_saliency"], **flat)
    make_store(tmp_path / "store", [attribution])
    assert main(["correlate", str(tmp_path / "store"), "--by", "tokens"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "store: no correlation is defined for any of 1 utterances" in captured.err


def test_output_says_languages_and_what_is_stored_of_cross_attention(make, tmp_path, capsys):
    store = make("a", cross_attention="norms")
    for name in ("numbers.csv", "numbers.json"):
        flags = ["--by", "layers", "--target", "encoder", "--output", str(tmp_path / name)]
        assert {row["cross_attention"] for row in records(capsys, store, *flags)} == {"norms"}
    rows = list(csv.DictReader(io.StringIO((tmp_path / "numbers.csv").read_text())))
    assert {row["cross_attention"] for row in rows} == {"norms"}
    languages = {(row["utterance"], row["src_lang"], row["tgt_lang"]) for row in rows}
    pairs = [["en", "en"]] * 2 + [["en", "it"]] * 2
    assert sorted(languages) == [(f"u{n}", *pair) for n, pair in enumerate(pairs)]
    (saved,) = json.loads((tmp_path / "numbers.json").read_text())["tables"]
    assert saved["languages"] == pairs
    assert saved["cross_attention"] == "norms"
    rows = records(capsys, store, "--by", "tokens", "--target", "encoder")
    assert {row["cross_attention"] for row in rows} == {"norms"}


def test_by_layers_counts_what_is_left_out_of_each_task(make, capsys):
    store = AttributionStore.open(make("a"))
    store.write(dataclasses.replace(store.read("u2"), encoder_saliency=None))
    rows = records(capsys, str(store.path), "--by", "layers")
    counts = {(row["target"], row["task"]): row["n_left_out"] for row in rows}
    tasks = [("input", "ASR en"), ("input", "ST en-it"), ("encoder", "ASR en")]
    assert counts == {**dict.fromkeys(tasks, "0"), ("encoder", "ST en-it"): "1"}
    assert main(["correlate", str(store.path), "--by", "layers"]) == 0
    left_out = "'ST en-it': Left out: 1 utterance ('u2': no encoder-output saliency)."
    assert capsys.readouterr().out.count(left_out) == 1


def test_by_tokens_saves_every_token(make, tmp_path):
    file = tmp_path / "tokens.csv"
    flags = ["--by", "tokens", "--target", "encoder", "--output", str(file)]
    assert main(["correlate", make("a"), *flags]) == 0
    rows = list(csv.DictReader(io.StringIO(file.read_text())))
    assert len(rows) == 20 * 3
    assert rows[0]["token"] == "▁w0"
    json_file = tmp_path / "tokens.json"
    assert main(["correlate", make("a"), *flags[:-1], str(json_file)]) == 0
    (saved,) = json.loads(json_file.read_text())["tables"]
    assert np.shape(saved["per_token"]) == (3, 20)


def test_several_stores_by_heads_name_themselves(make, capsys):
    stores = [make("a"), make("b", seed=1, without=["encoder_saliency"])]
    assert main(["correlate", *stores]) == 0
    captured = capsys.readouterr()
    assert captured.out.count("Pearson correlation") == 3
    assert "'b': Pearson correlation of cross-attention with input saliency" in captured.out
    assert "note: b: no encoder-output saliency in this store" in captured.err


def test_coefficient_and_normalize_reach_the_numbers(make, capsys):
    store = make("a")
    flags = ["--target", "input", "--coefficient", "spearman", "--normalize", "saliency"]
    row = records(capsys, store, *flags)[0]
    table = correlate(
        AttributionStore.open(store), "input", coefficient="spearman", normalize="saliency"
    )
    assert float(row["head_1"]) == table.mean[0, 0]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--by", "aggregation", "--aggregation", "2d-avg"], "--aggregation 2d-avg with --by"),
        (["--by", "aggregation", "--target", "encoder"], "only the input is aggregated"),
        (["--by", "probability"], "expected two or more stores"),
        (
            ["--target", "encoder", "--aggregation", "2d-avg"],
            "--aggregation 2d-avg with --target encoder: only the input is aggregated",
        ),
        (["--by", "layers", "--vary", "nonsense"], "--vary nonsense: no store has this parameter"),
        (["--vary", "num-masks"], "--vary with --by heads: expected --by layers"),
        (["--resamples", "99"], "--resamples 99: expected at least 100"),
    ],
)
def test_flags_that_do_not_go_together(make, capsys, flags, said):
    assert main(["correlate", make("a"), *flags]) == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.err.count("\n") == 1


def test_a_store_named_twice_is_an_error(make, capsys):
    store = make("a")
    assert main(["correlate", store, store + "/"]) == 2
    assert "named twice" in capsys.readouterr().err
