import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import as_segments, make_attribution, make_store

from fbk_xattn.analysis.agreement import agreement, pearson_by_token
from fbk_xattn.errors import InputError
from fbk_xattn.store import AttributionStore


def test_correlation_is_over_the_cells_of_each_token(rng):
    a, b = rng.random((2, 3, 4, 5))
    a[2] = 1
    expected = [np.corrcoef(a[i].ravel(), b[i].ravel())[0, 1] for i in range(2)]
    np.testing.assert_allclose(pearson_by_token(a, b), [*expected, np.nan])


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1), st.floats(0.1, 10), st.floats(-5, 5))
def test_scale_and_offset_of_a_map_do_not_matter(seed, scale, offset):
    a, b = np.random.default_rng(seed).random((2, 4, 9))
    np.testing.assert_allclose(pearson_by_token(scale * a + offset, b), pearson_by_token(a, b))
    np.testing.assert_allclose(pearson_by_token(a, scale * a + offset), 1)
    np.testing.assert_allclose(pearson_by_token(a, -a), -1)


def two_stores(rng, tmp_path, change=lambda attribution: attribution):
    ones = [make_attribution(rng, id=f"u{n}", S=5 + n) for n in range(3)]
    others = [
        change(
            dataclasses.replace(
                one,
                encoder_saliency=rng.random(one.encoder_saliency.shape).astype(np.float32),
                input_saliency=as_segments(rng.random((len(one.tokens), *one.fbank.shape))),
            )
        )
        for one in ones
    ]
    return make_store(tmp_path / "one", ones), make_store(tmp_path / "other", others)


@pytest.mark.parametrize("target", ["input", "encoder"])
def test_a_store_agrees_with_itself_and_with_others_as_a_loop_says(rng, tmp_path, target):
    one, other = two_stores(rng, tmp_path)
    with_itself = agreement(one, one, target)
    assert with_itself.least == pytest.approx(1)
    found = agreement(one, other, target)
    expected = []
    for name in one.ids():
        a, b = one.read(name), other.read(name)
        maps = [
            each.input_saliency.dense() if target == "input" else each.encoder_saliency
            for each in (a, b)
        ]
        expected += [
            np.corrcoef(*(map_[token].ravel() for map_ in maps))[0, 1]
            for token in range(1, len(a.tokens) - 1)
        ]
    np.testing.assert_allclose(found.correlation, expected, atol=1e-6)
    assert found.median == pytest.approx(np.median(expected), abs=1e-6)
    assert found.least == pytest.approx(min(expected), abs=1e-6)
    assert found.utterance.tolist() == [0] * 3 + [1] * 4 + [2] * 5
    assert found.least <= found.quantile() <= found.median


def test_aggregated_maps_can_be_compared(rng, tmp_path):
    one, other = two_stores(rng, tmp_path)
    found = agreement(one, other, "input", "2d-avg")
    assert found.aggregation == "2d-avg"
    assert not np.allclose(found.correlation, agreement(one, other, "input").correlation)


def test_a_flat_map_is_counted_and_left_out(rng, tmp_path):
    def flatten(attribution):
        dense = attribution.input_saliency.dense()
        dense[2] = 0.5
        return dataclasses.replace(attribution, input_saliency=as_segments(dense))

    found = agreement(*two_stores(rng, tmp_path, flatten), "input")
    assert found.n_undefined == 3
    assert np.isfinite([found.median, found.least]).all()


def test_other_hypotheses_are_named_and_left_out(rng, tmp_path):
    def change(attribution):
        if attribution.id != "u1":
            return attribution
        return dataclasses.replace(attribution, tokens=("x", *attribution.tokens[1:]))

    found = agreement(*two_stores(rng, tmp_path, change), "encoder")
    assert found.other_hypotheses == ("u1",)
    assert found.ids == ("u0", "u2")


def test_no_hypothesis_in_common_is_an_error(rng, tmp_path):
    def change(attribution):
        return dataclasses.replace(attribution, tokens=("x", *attribution.tokens[1:]))

    with pytest.raises(InputError, match="no utterance has the same hypothesis"):
        agreement(*two_stores(rng, tmp_path, change), "encoder")


@pytest.mark.parametrize("n_frames", [22, 26])
@pytest.mark.parametrize(
    ("target", "aggregation"), [("input", None), ("input", "2d-max"), ("encoder", None)]
)
def test_other_features_are_refused(rng, tmp_path, n_frames, target, aggregation):
    def change(attribution):
        S = len(attribution.tokens)
        return make_attribution(rng, id=attribution.id, S=S, T=n_frames)

    one, other = two_stores(rng, tmp_path, change)
    with pytest.raises(InputError, match=r"other: utterance 'u0' has other features than in .*one"):
        agreement(one, other, target, aggregation)


def test_other_utterances_or_models_are_refused(rng, tmp_path):
    one, _ = two_stores(rng, tmp_path)
    fewer = make_store(tmp_path / "fewer", [one.read("u0")])
    with pytest.raises(InputError, match="without 2 utterances of the other stores"):
        agreement(one, fewer, "encoder")
    model = AttributionStore.create(tmp_path / "model", {"checkpoint SHA-256": "another"})
    with pytest.raises(InputError, match="expected maps of the same model and features"):
        agreement(one, model, "encoder")
