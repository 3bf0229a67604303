import csv
import dataclasses
import json

import numpy as np
import pytest
from synthetic import make_attribution, make_store

from fbk_xattn.analysis.agreement import agreement
from fbk_xattn.cli.main import main


@pytest.fixture
def stores(rng, tmp_path):
    ones = [make_attribution(rng, id=f"u{n}") for n in range(3)]
    others = [
        dataclasses.replace(
            one, encoder_saliency=rng.random(one.encoder_saliency.shape).astype(np.float32)
        )
        for one in ones
    ]
    return make_store(tmp_path / "one", ones), make_store(tmp_path / "other", others)


def test_prints_both_targets_of_each_pair(stores, capsys):
    one, other = stores
    assert main(["agreement", str(one.path), str(other.path)]) == 0
    captured = capsys.readouterr()
    cells, encoder = [line for line in captured.out.splitlines() if line.startswith("one, other")]
    assert cells.split()[-5:] == ["15", "0", *3 * ["1.00000"]]
    found = agreement(one, other, "encoder")
    numbers = [f"{x:.5f}" for x in (found.median, found.quantile(), found.least)]
    assert encoder.split()[-3:] == numbers
    assert captured.err == ""


def test_csv_has_every_token(stores, tmp_path):
    one, other = stores
    file = tmp_path / "tokens.csv"
    arguments = [str(one.path), str(other.path), "--target", "encoder", "--output", str(file)]
    assert main(["agreement", *arguments]) == 0
    rows = list(csv.DictReader(file.open(encoding="utf-8")))
    found = agreement(one, other, "encoder")
    assert [float(row["correlation"]) for row in rows] == found.correlation.tolist()
    assert {row["utterance"] for row in rows} == {"u0", "u1", "u2"}


def test_json_has_null_for_what_is_undefined(rng, tmp_path):
    flat = make_attribution(rng, encoder_saliency=np.ones((7, 6), dtype=np.float32))
    stores = [str(make_store(tmp_path / name, [flat]).path) for name in "ab"]
    file = tmp_path / "tokens.json"
    assert main(["agreement", *stores, "--target", "encoder", "--output", str(file)]) == 0

    def refuse(name):
        raise ValueError(name)

    rows = json.loads(file.read_text(), parse_constant=refuse)
    assert [row["correlation"] for row in rows] == [None] * 5


def explained(rng, tmp_path, **targets):
    """Write a store for each name, which explains these targets."""
    attribution = make_attribution(rng)
    names = {"input": "input_saliency", "encoder": "encoder_saliency"}
    for name, there in targets.items():
        without = {names[target]: None for target in names if target not in there}
        parts = [dataclasses.replace(attribution, **without)]
        make_store(tmp_path / name, parts, **{"--explain": there})
    return [str(tmp_path / name) for name in targets]


@pytest.mark.parametrize("turned", [False, True])
def test_targets_are_those_that_all_stores_have(rng, tmp_path, capsys, turned):
    stores = explained(rng, tmp_path, both=["input", "encoder"], part=["encoder"])
    assert main(["agreement", *(reversed(stores) if turned else stores)]) == 0
    out = capsys.readouterr().out
    assert "encoder-output saliency" in out
    assert "input saliency" not in out


def test_no_target_in_common_is_an_error(rng, tmp_path, capsys):
    stores = explained(rng, tmp_path, a=["input"], b=["encoder"], c=[])
    assert main(["agreement", *stores]) == 2
    err = capsys.readouterr().err
    assert "a has input" in err
    assert "b has encoder" in err
    assert "c has none" in err
    assert err.count("\n") == 1


def test_aggregation_is_of_the_input(stores, capsys):
    one, other = stores
    arguments = [str(one.path), str(other.path), "--aggregation", "2d-max"]
    assert main(["agreement", *arguments]) == 0
    assert "input saliency, 2d-max" in capsys.readouterr().out


def test_one_store_is_not_enough(stores, capsys):
    assert main(["agreement", str(stores[0].path)]) == 2
    assert "OTHER" in capsys.readouterr().err


def test_aggregation_without_the_input_is_an_error(stores, capsys):
    arguments = [*(str(store.path) for store in stores), "--target", "encoder"]
    assert main(["agreement", *arguments, "--aggregation", "2d-max"]) == 2
    assert "--aggregation 2d-max with --target encoder" in capsys.readouterr().err


def test_parameters_in_which_the_stores_differ_are_named(rng, tmp_path, capsys):
    maps = [make_attribution(rng)]
    shared = {"--explain": ["encoder"], "--num-masks": 9}
    made = {
        "s1": {**shared, "--seed": 1, "--input-occlusion-probability": 0.1},
        "s2": {**shared, "--seed": 2, "--scorer": "kl"},
        "s3": {**shared, "--seed": 1},
    }
    stores = [
        str(make_store(tmp_path / n, maps, **parameters).path) for n, parameters in made.items()
    ]
    file = tmp_path / "tokens.csv"
    assert main(["agreement", *stores, "--output", str(file)]) == 0
    out = capsys.readouterr().out
    assert "'s1, s2' differ in --seed (1, 2). 's1, s3' differ in no parameter." in out
    rows = list(csv.DictReader(file.open(encoding="utf-8")))
    assert {row["differ_in"] for row in rows} == {"--seed (1, 2)", "no parameter"}
