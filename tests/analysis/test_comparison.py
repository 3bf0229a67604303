import dataclasses

import numpy as np
import pytest
from synthetic import make_attribution, make_store

from fbk_xattn.analysis.comparison import (
    check_same_but_probability,
    check_same_data,
    check_same_method,
    check_same_utterances,
    data_difference,
    same_but_probability,
    store_names,
)
from fbk_xattn.errors import InputError
from fbk_xattn.store import AttributionStore

PARAMETERS = {
    "checkpoint SHA-256": "x",
    "--beam": 5,
    "--explain": ["input", "encoder"],
    "--num-masks": 100,
    "--scorer": "kl",
    "--input-occlusion-probability": 0.5,
    "--encoder-occlusion-probability": 0.7,
    "--slic-sigma": 0.0,
}


@pytest.fixture
def make(tmp_path):
    def make_empty(name, **changed):
        changed = {key.replace("_", "-"): value for key, value in changed.items()}
        parameters = PARAMETERS | {f"--{key}": value for key, value in changed.items()}
        return AttributionStore.create(tmp_path / name, parameters)

    return make_empty


@pytest.mark.parametrize(
    ("changed", "target"),
    [
        ({"num_masks": 200}, "input"),
        ({"scorer": "probability"}, "encoder"),
        ({"cross_attention": "norms"}, "encoder"),
        ({"input_segmentation": "cell"}, "input"),
        ({"slic_sigma": 1.0}, "input"),
        ({"input_occlusion_probability": 0.3}, "input"),
        ({"encoder_occlusion_probability": 0.3}, "encoder"),
        ({"previous_token_occlusion_probability": 0.3}, "input"),
    ],
)
def test_another_explanation_is_refused_with_the_parameter(make, changed, target):
    ((name, value),) = changed.items()
    flag = "--" + name.replace("_", "-")
    stores = [make("a"), make("b", **changed)]
    with pytest.raises(
        InputError, match=rf"b: {flag} is {value}, but .* in .*a; expected the same"
    ):
        check_same_method(stores, target)
    check_same_method(stores, target, vary=[flag])


def test_other_models_decoding_and_the_other_target_may_differ(make):
    check_same_method([make("a"), make("b", beam=1, encoder_occlusion_probability=0.1)], "input")
    check_same_method([make("c"), make("d", slic_sigma=1.0, explain=["encoder"])], "encoder")


def test_stores_from_before_a_parameter_have_its_default(make):
    old = {key: value for key, value in PARAMETERS.items() if key != "--scorer"}
    stores = [AttributionStore.create(make("a").path.with_name("old"), old), make("b")]
    for target in ("input", "encoder"):
        check_same_method([*stores, make("c", cross_attention="weights")], target)


def test_probability_alone_may_differ(make):
    a, b = make("a"), make("b", input_occlusion_probability=0.3, explain=["input"])
    check_same_but_probability([a, b], "input")
    assert same_but_probability(a, b)
    other = make("c", input_occlusion_probability=0.7, beam=1)
    with pytest.raises(InputError, match=r"c: --beam is 1, but 5 in .*a"):
        check_same_but_probability([a, b, other], "input")
    assert not same_but_probability(a, other)


def test_the_same_probability_twice_and_none_are_refused(make):
    with pytest.raises(InputError, match=r"b: --input-occlusion-probability is 0.5 as in .*a"):
        check_same_but_probability([make("a"), make("b")], "input")
    with pytest.raises(InputError, match=r"c: its meta.json has no --encoder-occlusion"):
        check_same_but_probability(
            [make("a"), make("c", encoder_occlusion_probability=None)], "encoder"
        )


def test_other_utterances_are_listed():
    check_same_utterances({"s": {"a", "b"}, "t": {"b", "a"}})
    with pytest.raises(InputError, match=r"^t: without 2 utterances of the other stores \(b, c\)"):
        check_same_utterances({"s": {"a", "b", "c"}, "t": {"a"}})


@pytest.fixture
def changed(rng, tmp_path):
    """Write a store of two utterances, and another in which the second is changed."""
    utterances = [make_attribution(rng, id=name) for name in "ab"]

    def change(**fields):
        second = dataclasses.replace(utterances[1], **fields)
        return [
            make_store(tmp_path / "one", utterances),
            make_store(tmp_path / "other", [utterances[0], second]),
        ]

    return change


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"tgt_lang": "it"}, "'b' has tgt_lang 'it', but 'de' in"),
        ({"src_text": "x"}, "'b' has src_text 'x', but 'some words' in"),
        ({"fbank": np.ones((22, 5))}, "'b' has other features than in"),
        ({"fbank": np.ones((23, 5))}, "'b' has other features than in"),
    ],
)
def test_other_data_is_refused_with_the_utterance(changed, fields, said):
    stores = changed(**fields)
    with pytest.raises(InputError, match=f"other: utterance {said} .*one"):
        check_same_data(stores)


def test_the_first_difference_ends_the_reading(changed, monkeypatch):
    one, other = changed(src_text="x")
    monkeypatch.setattr(AttributionStore, "read", lambda *_: pytest.fail("read maps"))
    one.file("a").write_bytes(b"")
    with pytest.raises(InputError, match="unreadable"):
        data_difference(one, other)
    other.file("a").unlink()
    assert data_difference(one, other) == f"utterance 'a' is not both there and in {one.path}"


def test_features_of_another_backend_are_the_same_data(rng, changed):
    fbank = rng.standard_normal((22, 5))
    one, other = changed(hypothesis="another", fbank=fbank)
    one.write(dataclasses.replace(one.read("b"), fbank=fbank + 0.01 * rng.random((22, 5))))
    assert data_difference(one, other) is None
    check_same_data([one, other])
    one.write(dataclasses.replace(one.read("b"), fbank=fbank + 0.2 * rng.random((22, 5))))
    assert data_difference(one, other) is not None


def test_names_are_folders_unless_two_are_the_same(make):
    a, b = make("x/test"), make("y/test")
    assert store_names([a, make("z")]) == ["test", "z"]
    assert store_names([a, b]) == [str(a.path), str(b.path)]
