import numpy as np
import pytest
from synthetic import make_attribution, make_store

from fbk_xattn.errors import InputError
from fbk_xattn.store import AttributionStore, CurveStore, DecodedCurve, DecodedStep


def make_curve(name="a/1", texts=("uno due ", "", "è")):
    steps = tuple(
        DecodedStep(text, np.arange(n + 2), np.full(n + 2, -0.25 * n, dtype=np.float32), -float(n))
        for n, text in enumerate(texts)
    )
    return DecodedCurve(
        id=name, src_lang="en", tgt_lang="it", src_text="one", tgt_text="uno",
        percentages=np.array([0, 50, 100]), n_removed=np.array([6, 3, 0]), n_units=6, steps=steps,
    )  # fmt: skip


def test_a_curve_comes_back_as_it_was_written(tmp_path):
    written = make_curve()
    with CurveStore.create(tmp_path, {"mode": "insertion", "--deletion-map": "input"}) as store:
        store.write(written)
    with CurveStore.open(tmp_path) as store:
        assert store.ids() == ["a/1"]
        assert (store.mode, store.map_name) == ("insertion", "input")
        read = store.read("a/1")
    assert [step.hypothesis for step in read.steps] == ["uno due ", "", "è"]
    assert [step.score for step in read.steps] == [0.0, -1.0, -2.0]
    for ours, theirs in zip(read.steps, written.steps, strict=True):
        np.testing.assert_array_equal(ours.token_ids, theirs.token_ids)
        np.testing.assert_array_equal(ours.positional_scores, theirs.positional_scores)
    assert read.n_units == 6
    np.testing.assert_array_equal(read.n_removed, [6, 3, 0])
    assert read.unmodified.hypothesis == "è"
    texts = ("id", "src_lang", "tgt_lang", "src_text", "tgt_text")
    assert [getattr(read, n) for n in texts] == [getattr(written, n) for n in texts]


def test_stores_of_one_kind_are_not_opened_as_the_other(tmp_path):
    make_store(tmp_path / "maps", [])
    CurveStore.create(tmp_path / "curves", {})
    with pytest.raises(InputError, match="maps: is an attribution store, expected a folder of"):
        CurveStore.open(tmp_path / "maps")
    with pytest.raises(InputError, match=r"curves: is a folder .* expected an attribution store"):
        AttributionStore.open(tmp_path / "curves")
    with pytest.raises(InputError, match="is an attribution store"):
        CurveStore.create(tmp_path / "maps", {})


def test_a_kind_of_the_future_is_named(tmp_path):
    CurveStore.create(tmp_path, {})
    meta = tmp_path / "meta.json"
    meta.write_text(meta.read_text().replace('"curves"', '["other"]'))
    with pytest.raises(InputError, match=r"is a store of kind \['other'\]"):
        CurveStore.open(tmp_path)


def test_other_parameters_are_refused(tmp_path):
    CurveStore.create(tmp_path, {"--deletion-map": "input"})
    with pytest.raises(InputError, match="has --deletion-map = input, this run has encoder"):
        CurveStore.create(tmp_path, {"--deletion-map": "encoder"})


def test_a_damaged_file_is_named(tmp_path):
    store = CurveStore.create(tmp_path, {})
    store.write(make_curve())
    file = store.file("a/1")
    file.write_bytes(file.read_bytes()[:80])
    with pytest.raises(InputError, match="unreadable"):
        store.read("a/1")


def test_a_write_that_fails_leaves_nothing(tmp_path, monkeypatch):
    store = CurveStore.create(tmp_path, {})
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "disk full")))
    with pytest.raises(OSError, match="disk full"):
        store.write(make_curve())
    assert [path.name for path in tmp_path.iterdir()] == ["meta.json"]


def test_texts_are_read_without_maps(rng, tmp_path):
    store = make_store(tmp_path, [make_attribution(rng)])
    texts = store.texts("a/1")
    assert texts["hypothesis"] == "paar Wörter"
    assert set(texts) == {
        "id", "speaker", "src_lang", "tgt_lang", "src_text", "tgt_text", "hypothesis",
    }  # fmt: skip
    with pytest.raises(InputError, match="no utterance 'b'"):
        store.texts("b")


def test_features_are_read_without_maps(rng, tmp_path):
    with AttributionStore.create(tmp_path, {}) as store:
        written = make_attribution(rng)
        store.write(written)
    np.testing.assert_array_equal(store.fbank("a/1"), written.fbank)
    with pytest.raises(InputError, match="no utterance 'b'"):
        store.fbank("b")
