from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import make_attribution, make_store

from fbk_xattn.analysis import (
    AGGREGATIONS,
    COEFFICIENTS,
    STANDARDISED,
    Bootstrap,
    Setting,
    correlate,
    correlate_store,
    correlate_utterance,
    frame_wise,
    mean_std,
    saliency_map,
)
from fbk_xattn.errors import InputError

SEEDS = st.integers(0, 2**32 - 1)


@settings(deadline=None, max_examples=15)
@given(SEEDS, st.sampled_from(sorted(COEFFICIENTS)), st.integers(0, 1), st.integers(0, 2))
def test_a_head_that_is_the_saliency_has_1(seed, coefficient, layer, head):
    attribution = make_attribution(np.random.default_rng(seed))
    same = replace(attribution, encoder_saliency=attribution.cross_attention[layer, head])
    values = correlate_utterance(same, "encoder", normalize="none", coefficient=coefficient)
    assert values[layer, head] == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("coefficient", ["spearman", "kendall"])
@pytest.mark.parametrize("target", ["input", "encoder"])
def test_other_coefficients_equal_scipy(rng, target, coefficient):
    attribution = make_attribution(rng)
    scipy_of = {"spearman": scipy.stats.spearmanr, "kendall": scipy.stats.kendalltau}[coefficient]
    saliency = mean_std(saliency_map(attribution, target)).ravel()
    attention = frame_wise(attribution.cross_attention[1, 2, 1:-1]).ravel()
    expected = scipy_of(attention, saliency).statistic
    ours = correlate_utterance(attribution, target, coefficient=coefficient)
    assert ours[1, 2] == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("normalize", sorted(STANDARDISED))
def test_each_map_is_standardised_if_asked_for(rng, normalize):
    attribution = make_attribution(rng)
    attention = attribution.cross_attention[0, 1, 1:-1].astype(float)
    saliency = attribution.encoder_saliency[1:-1].astype(float)
    if normalize in ("both", "cross-attention"):
        attention = (attention - attention.mean(0)) / attention.std(0)
    if normalize in ("both", "saliency"):
        rows = saliency - saliency.mean(1, keepdims=True)
        saliency = rows / rows.std(1, ddof=1, keepdims=True)
    expected = scipy.stats.pearsonr(attention.ravel(), saliency.ravel()).statistic
    ours = correlate_utterance(attribution, "encoder", normalize=normalize)
    assert ours[0, 1] == pytest.approx(expected, abs=1e-9)


@settings(deadline=None, max_examples=15)
@given(
    SEEDS,
    st.lists(st.floats(0.01, 100), min_size=7, max_size=7),
    st.lists(st.floats(-50, 50), min_size=7, max_size=7),
    st.sampled_from(sorted(STANDARDISED)),
)
def test_scale_of_a_token_does_not_matter_where_saliency_is_standardised(
    seed, scale, offset, normalize
):
    a, b = np.array(scale)[:, None], np.array(offset)[:, None]
    before = make_attribution(np.random.default_rng(seed))
    after = replace(before, encoder_saliency=a * before.encoder_saliency + b)
    # All tokens alike: Pearson's r of the whole map does not change, standardised or not.
    alike = replace(before, encoder_saliency=a[:1] * before.encoder_saliency + b[:1])
    changed = [alike, *([after] if normalize in ("both", "saliency") else [])]
    expected = correlate_utterance(before, "encoder", normalize=normalize)
    for attribution in changed:
        values = correlate_utterance(attribution, "encoder", normalize=normalize)
        np.testing.assert_allclose(values, expected, atol=1e-8)


@settings(deadline=None, max_examples=10)
@given(SEEDS, st.permutations(range(4)))
def test_order_of_utterances_does_not_matter(tmp_path_factory, seed, order):
    rng = np.random.default_rng(seed)
    attributions = [make_attribution(rng) for _ in range(4)]
    means = []
    for numbers in (range(4), order):
        folder = tmp_path_factory.mktemp("store")
        named = [replace(attributions[n], id=f"u{i}") for i, n in enumerate(numbers)]
        means.append(correlate(make_store(folder, named), "encoder").mean)
    np.testing.assert_allclose(*means, atol=1e-12)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize(
    ("target", "array"),
    [
        ("input", "cross_attention"),
        ("encoder", "encoder_saliency"),
        ("input", "input_numerator_0"),
    ],
)
def test_what_is_no_number_names_utterance_and_array(rng, tmp_path, target, array, bad):
    attribution = make_attribution(rng)
    levels = attribution.input_saliency.levels
    values = levels[0].numerator if array == "input_numerator_0" else getattr(attribution, array)
    values[..., 2, 1] = bad
    n_bad = 6 if array == "cross_attention" else 1
    message = f"^utterance 'a/1': {array} has {n_bad} of {values.size} values that are NaN or inf"
    with pytest.raises(InputError, match=message):
        correlate(make_store(tmp_path, [attribution]), target)


def test_several_settings_in_one_reading(rng, tmp_path):
    store = make_store(tmp_path, [make_attribution(rng, id=name) for name in "ab"])
    chosen = [Setting("input", how) for how in AGGREGATIONS]
    chosen += [Setting("encoder"), Setting("encoder", coefficient="kendall", normalize="none")]
    tables = correlate_store(store, chosen)
    assert [table.setting for table in tables] == chosen
    for setting, table in zip(chosen, tables, strict=True):
        alone = correlate(
            store,
            setting.target,
            setting.aggregation or "2d-max",
            normalize=setting.normalize,
            coefficient=setting.coefficient,
        )
        np.testing.assert_array_equal(table.per_utterance, alone.per_utterance)


def test_tables_split_by_task(rng, tmp_path):
    languages = {"a": ("en", "en"), "b": ("en", "it"), "c": ("en", "en"), "d": ("it", "it")}
    store = make_store(
        tmp_path,
        [
            make_attribution(rng, id=name, src_lang=source, tgt_lang=target)
            for name, (source, target) in languages.items()
        ],
    )
    whole = correlate(store, "encoder")
    parts = whole.by_task()
    assert {name: part.ids for name, part in parts.items()} == {
        "ASR en": ("a", "c"),
        "ASR it": ("d",),
        "ST en-it": ("b",),
    }
    np.testing.assert_array_equal(parts["ASR en"].per_utterance, whole.per_utterance[[0, 2]])
    assert parts["ASR en"].languages == (("en", "en"),) * 2


def test_interval_of_a_table_is_of_its_utterances(rng, tmp_path):
    store = make_store(tmp_path, [make_attribution(rng, id=f"u{n}") for n in range(6)])
    table = correlate(store, "input")
    bootstrap = Bootstrap(n_resamples=50, seed=3)
    expected = bootstrap.interval(table.per_utterance)
    np.testing.assert_array_equal(table.interval(bootstrap), expected)
    assert table.interval().shape == (2, 3, 4)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"normalize": "max"}, "'max': expected one of both, cross-attention, saliency, none"),
        ({"coefficient": "r"}, "'r': expected one of pearson, spearman, kendall"),
    ],
)
def test_unknown_names_of_a_setting(fields, message):
    with pytest.raises(InputError, match=message):
        Setting("input", **fields)
