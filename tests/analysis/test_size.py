import numpy as np
import pytest
from golden import published
from synthetic import as_segments, make_attribution, make_store

from fbk_xattn.analysis.metric import area
from fbk_xattn.analysis.normalizers import normalize
from fbk_xattn.analysis.size import THRESHOLDS, size, size_of_maps
from fbk_xattn.errors import InputError
from fbk_xattn.store import AttributionStore


@pytest.fixture(scope="module")
def published_sizes():
    return [size_of_maps(published.saliency(number)) for number in range(6)]


def test_size_is_that_of_the_published_system(published_sizes):
    golden = published.values("size_score")["single_mean_std+paired_min_max"]
    np.testing.assert_allclose(THRESHOLDS, golden["thresholds"], atol=1e-12)
    # One pass over all cells; theirs is in single precision, where a cell may change sides.
    np.testing.assert_allclose(np.mean(published_sizes, axis=0), golden["once"], atol=1e-9)
    np.testing.assert_allclose(np.mean(published_sizes, axis=0), golden["saliency"], atol=2e-5)


def test_against_a_plain_loop(rng):
    maps, tokens = rng.random((4, 5, 3)), np.tril(rng.random((4, 4)))
    values = normalize(maps, tokens).saliency
    for threshold, share in zip(THRESHOLDS, size_of_maps(maps, tokens), strict=True):
        count = sum(cell >= threshold for cell in values.ravel().tolist())
        assert share == pytest.approx(100 * count / values.size)


def test_a_compact_map_is_smaller_than_a_diffuse_one():
    peak, ramp = np.zeros((1, 100)), np.linspace(0, 1, 100)[np.newaxis]
    peak[0, 3] = 1.0
    areas = [area(THRESHOLDS, size_of_maps(maps)) for maps in (peak, ramp)]
    assert areas[0] < 5
    assert areas[1] == pytest.approx(50, abs=3)


def test_size_does_not_depend_on_the_scale_of_a_token(rng):
    maps = rng.random((4, 6, 3))
    scaled = maps * rng.uniform(1, 9, (4, 1, 1)) + rng.uniform(-3, 3, (4, 1, 1))
    np.testing.assert_allclose(size_of_maps(scaled), size_of_maps(maps), atol=1e-9)


def test_the_size_of_a_store_is_the_mean_over_its_utterances(rng, tmp_path):
    attributions = [make_attribution(rng, id=name, T=T) for name, T in (("a", 10), ("b", 22))]
    store = make_store(tmp_path, attributions)
    seen = []
    curve = size(store, lambda done, total: seen.append((done, total)))
    curves = [size_of_maps(a.input_saliency.dense()) for a in attributions]
    np.testing.assert_allclose(curve.mean, np.mean(curves, axis=0))
    assert curve.auc == pytest.approx(np.mean([area(THRESHOLDS, curve) for curve in curves]))
    assert curve.ids == ("a", "b")
    assert seen == [(1, 2), (2, 2)]


def test_tokens_without_a_range_are_counted(rng, tmp_path):
    dense = rng.random((7, 22, 5))
    dense[2] = 0.25
    flat = make_attribution(rng, id="flat", input_saliency=as_segments(dense))
    curve = size(make_store(tmp_path, [make_attribution(rng), flat]))
    assert curve.without_range == {"flat": 1}
    assert curve.per_utterance[1, 0] == pytest.approx(100 * 6 / 7)


def test_utterances_without_the_map_are_named(rng, tmp_path):
    bare = make_attribution(rng, id="bare", without=["input_saliency"])
    curve = size(make_store(tmp_path / "some", [make_attribution(rng), bare]))
    assert (curve.ids, curve.left_out) == (("a/1",), ("bare",))
    with pytest.raises(InputError, match=r"1 utterances without input saliency.* --explain input"):
        size(make_store(tmp_path / "none", [bare]))
    with pytest.raises(InputError, match="no utterance in this store"):
        size(AttributionStore.create(tmp_path / "empty", parameters={}))


def test_nan_names_utterance_and_array(rng, tmp_path):
    tokens = np.zeros((7, 7), dtype=np.float32)
    tokens[3, 1] = np.nan
    store = make_store(tmp_path, [make_attribution(rng, token_saliency=tokens)])
    with pytest.raises(InputError, match="utterance 'a/1': token_saliency has 1 of 49 values"):
        size(store)
