import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import as_segments, make_attribution, make_store

import fbk_xattn
from fbk_xattn.analysis import (
    AGGREGATIONS,
    Setting,
    correlate,
    correlate_targets,
    correlate_tokens,
    correlate_utterance,
)
from fbk_xattn.analysis.coefficients import pearson
from fbk_xattn.errors import InputError

SEEDS = st.integers(0, 2**32 - 1)


def reference(attribution, target, aggregation="2d-max"):
    """One correlation after the other, with nothing but means, deviations and scipy."""
    first, last = attribution.n_prefix, len(attribution.tokens) - 1
    step, n_frames = attribution.frames_per_step, attribution.fbank.shape[0]
    saliency = []
    for token in range(first, last):
        if target == "encoder":
            row = attribution.encoder_saliency[token].astype(float)
        else:
            cells = attribution.input_saliency.dense()[token].astype(float)
            row = []
            for start in range(0, n_frames, step):
                window = cells[start : start + step]
                row.append(
                    {
                        "2d-max": np.max(window),
                        "2d-avg": np.mean(window),
                        "1d-max-1d-avg": np.mean(np.max(window, axis=1)),
                    }[aggregation]
                )
            row = np.array(row)
        saliency.append((row - row.mean()) / row.std(ddof=1))
    attention = attribution.cross_attention.astype(float)
    L, H = attention.shape[:2]
    result = np.empty((L + 1, H + 1))
    for layer in range(L + 1):
        for head in range(H + 1):
            layers = range(L) if layer == L else [layer]
            heads = range(H) if head == H else [head]
            weights = np.mean([attention[a, b, first:last] for a in layers for b in heads], axis=0)
            for column in range(weights.shape[1]):
                values = weights[:, column]
                deviation = values.std() or 1.0
                weights[:, column] = (values - values.mean()) / deviation
            result[layer, head] = scipy.stats.pearsonr(
                weights.flatten(), np.array(saliency).flatten()
            ).statistic
    return result


@settings(deadline=None, max_examples=15)
@given(SEEDS, st.integers(4, 8), st.integers(9, 30), st.integers(1, 5), st.sampled_from([0, 1]))
def test_equals_scipy_in_a_loop(seed, S, T, frames_per_step, n_prefix):
    attribution = make_attribution(
        np.random.default_rng(seed), S=S, T=T, frames_per_step=frames_per_step, n_prefix=n_prefix
    )
    for target, aggregation in [("encoder", "2d-max"), *(("input", a) for a in AGGREGATIONS)]:
        ours = correlate_utterance(attribution, target, aggregation)
        assert ours.shape == (3, 4)
        assert np.all(np.abs(ours) <= 1)
        np.testing.assert_allclose(ours, reference(attribution, target, aggregation), atol=1e-10)


@settings(deadline=None)
@given(SEEDS, st.integers(2, 40), st.sampled_from([1e-170, 1e-9, 1.0, 1e9]))
def test_pearson_equals_scipy(seed, n, scale):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(2, 3, n)) * scale, rng.normal(size=n)
    expected = [[scipy.stats.pearsonr(row, y).statistic for row in rows] for rows in x]
    np.testing.assert_allclose(pearson(x, y), expected, atol=1e-9)


def test_pearson_is_never_beyond_1_by_rounding(rng):
    for _ in range(200):
        x = rng.normal(size=5)
        assert np.abs(pearson(np.stack([x, -x]), x)).max() <= 1


def test_pearson_of_a_constant_is_nan_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        r = pearson(np.array([[0.1, 0.1, 0.1], [1, 2, 4]]), np.array([1.0, 2.0, 4.0]))
        assert np.isnan(r[0])
        assert r[1] == pytest.approx(1)
        assert np.isnan(pearson(np.array([1.0, 2.0]), np.zeros(2)))


# Standardised both by column and, up to a factor, by row: so what comes out is known.
CHECKERBOARD = np.array([[1, -1, 1, -1], [-1, 1, -1, 1]])


@pytest.mark.parametrize(("sign", "expected"), [(1, 1), (-1, -1)])
def test_saliency_equal_or_opposite_to_cross_attention(rng, sign, expected):
    weights, saliency = 0.25 + 0.1 * CHECKERBOARD, sign * np.array([[3], [5]]) * CHECKERBOARD
    edge = np.full((1, 4), 0.25)
    attribution = make_attribution(
        rng,
        S=4,
        T=16,
        cross_attention=np.vstack([edge, weights, edge])[None, None].astype(np.float32),
        encoder_saliency=np.vstack([edge, saliency, edge]),
    )
    np.testing.assert_allclose(correlate_utterance(attribution, "encoder"), expected, rtol=1e-12)


@settings(deadline=None, max_examples=20)
@given(
    SEEDS,
    st.lists(st.floats(0.01, 100), min_size=7, max_size=7),
    st.lists(st.floats(-50, 50), min_size=7, max_size=7),
)
def test_scale_and_offset_of_a_token_do_not_matter(seed, scale, offset):
    a, b = np.array(scale)[:, None], np.array(offset)[:, None]
    before = make_attribution(np.random.default_rng(seed))
    after = replace(
        before,
        encoder_saliency=a * before.encoder_saliency + b,
        input_saliency=as_segments(a[..., None] * before.input_saliency.dense() + b[..., None]),
    )
    for target, tolerance in (
        ("encoder", 1e-8),
        ("input", 2e-2),
    ):  # the latter is stored in float32
        np.testing.assert_allclose(
            correlate_utterance(after, target),
            correlate_utterance(before, target),
            atol=tolerance,
        )


@settings(deadline=None, max_examples=20)
@given(SEEDS, st.permutations(range(1, 6)))
def test_order_of_content_tokens_does_not_matter(seed, order):
    before = make_attribution(np.random.default_rng(seed))
    rows = [0, *order, 6]
    after = replace(
        before,
        cross_attention=before.cross_attention[:, :, rows],
        encoder_saliency=before.encoder_saliency[rows],
        input_saliency=as_segments(before.input_saliency.dense()[rows]),
    )
    for target in ("encoder", "input"):
        np.testing.assert_allclose(
            correlate_utterance(after, target), correlate_utterance(before, target), atol=1e-12
        )


@pytest.mark.parametrize("target", ["input", "encoder"])
def test_language_tag_and_eos_do_not_matter_and_content_does(rng, target):
    before = make_attribution(rng)

    def with_row(row):
        attention, encoder = before.cross_attention.copy(), before.encoder_saliency.copy()
        dense = before.input_saliency.dense()
        attention[:, :, row] = rng.random(attention[:, :, row].shape)
        encoder[row] = 100 * rng.random(encoder[row].shape)
        dense[row] = 100 * rng.random(dense[row].shape)
        changed = replace(
            before,
            cross_attention=attention,
            encoder_saliency=encoder,
            input_saliency=as_segments(dense),
        )
        return correlate_utterance(changed, target)

    unchanged = correlate_utterance(before, target)
    np.testing.assert_array_equal(with_row(0), unchanged)
    np.testing.assert_array_equal(with_row(-1), unchanged)
    assert np.all(with_row(1) != unchanged)


def test_without_language_tag_the_first_row_is_content(rng):
    tagged = make_attribution(rng)
    untagged = replace(tagged, n_prefix=0)
    assert np.all(
        correlate_utterance(tagged, "encoder") != correlate_utterance(untagged, "encoder")
    )


def test_margins_average_weights_and_not_correlations(rng):
    attribution = make_attribution(rng)
    table = correlate_utterance(attribution, "encoder")
    first_layer = replace(
        attribution, cross_attention=attribution.cross_attention[:1].mean(1, keepdims=True)
    )
    assert table[0, -1] == pytest.approx(
        correlate_utterance(first_layer, "encoder")[0, 0], abs=1e-6
    )
    assert abs(table[0, -1] - table[0, :-1].mean()) > 1e-3


def test_a_constant_head_is_undefined_alone(rng):
    attribution = make_attribution(rng)
    attribution.cross_attention[1, 2] = 1 / attribution.cross_attention.shape[-1]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        undefined = np.isnan(correlate_utterance(attribution, "encoder"))
    assert np.argwhere(undefined).tolist() == [[1, 2]]


@pytest.mark.parametrize("S", [2, 3])
@pytest.mark.parametrize("target", ["input", "encoder"])
def test_no_or_one_content_token_is_undefined(rng, S, target):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        values = correlate_utterance(make_attribution(rng, S=S), target)
    assert values.shape == (3, 4)
    assert np.isnan(values).all()


@pytest.mark.parametrize(
    ("without", "target", "flag"),
    [
        ("encoder_saliency", "encoder", "--explain encoder"),
        ("input_saliency", "input", "--explain input"),
        ("cross_attention", "input", "--save-cross-attention"),
    ],
)
def test_utterance_without_a_part_names_itself_and_the_flag(rng, without, target, flag):
    with pytest.raises(InputError, match=f"'a/1'.* with {flag}$"):
        correlate_utterance(make_attribution(rng, without=[without]), target)


@pytest.mark.parametrize(
    ("target", "field", "value"),
    [
        ("encoder", "encoder_saliency", np.ones((7, 5))),
        ("encoder", "encoder_saliency", np.ones((6, 6))),
        ("input", "input_saliency", as_segments(np.ones((6, 22, 5)))),
        ("input", "input_saliency", as_segments(np.ones((7, 21, 5)))),
        ("input", "cross_attention", np.ones((2, 3, 6, 6))),
        ("input", "cross_attention", np.ones((2, 3, 7, 7))),
        ("input", "frames_per_step", 2),
    ],
)
def test_shapes_that_disagree_name_the_utterance(rng, target, field, value):
    with pytest.raises(InputError, match=r"^utterance 'a/1': .*expected"):
        correlate_utterance(replace(make_attribution(rng), **{field: value}), target)


def test_unknown_target(rng):
    with pytest.raises(InputError, match="target 'output': expected one of input, encoder"):
        correlate_utterance(make_attribution(rng), "output")


def test_store_gives_the_mean_of_the_defined_and_counts_the_others(rng, tmp_path):
    attributions = [make_attribution(rng, id=f"u{n}", T=17 + n) for n in range(3)]
    attributions[1].cross_attention[0, 1] = 0.2
    short = make_attribution(rng, id="u3", S=2)
    table = correlate(make_store(tmp_path, [*attributions, short]), "encoder")

    values = [correlate_utterance(a, "encoder") for a in attributions]
    expected = np.mean(values, axis=0)
    expected[0, 1] = (values[0][0, 1] + values[2][0, 1]) / 2
    np.testing.assert_allclose(table.mean, expected, atol=1e-12)
    assert table.ids == ("u0", "u1", "u2", "u3")
    np.testing.assert_array_equal(table.per_utterance[:3], values)
    assert np.isnan(table.per_utterance[3]).all()
    assert table.undefined_ids == ("u1", "u3")
    assert table.n_undefined.tolist() == [[1, 2, 1, 1], [1, 1, 1, 1], [1, 1, 1, 1]]
    assert table.n_utterances.tolist() == [[3, 2, 3, 3], [3, 3, 3, 3], [3, 3, 3, 3]]
    assert (table.n_layers, table.n_heads) == (2, 3)
    assert table.left_out == {}


@pytest.mark.parametrize("stored", ["weights", "norms"])
def test_tables_say_what_was_stored_of_cross_attention(rng, tmp_path, stored):
    store = make_store(tmp_path, [make_attribution(rng)], **{"--cross-attention": stored})
    (tokens,) = correlate_tokens(store, [Setting("encoder")])
    table = correlate(store, "encoder")
    assert table.cross_attention == tokens.cross_attention == stored
    assert [part.cross_attention for part in table.by_task().values()] == [stored]


def test_a_store_of_another_cross_attention_is_refused(rng, tmp_path):
    store = make_store(tmp_path, [make_attribution(rng)], **{"--cross-attention": "gates"})
    with pytest.raises(InputError, match="--cross-attention 'gates', expected one of weights, nor"):
        correlate(store, "encoder")


def test_store_with_undefined_correlations_only_has_nan_as_mean(rng, tmp_path):
    table = correlate(make_store(tmp_path, [make_attribution(rng, S=3)]), "input")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isnan(table.mean).all()
    assert not table.n_utterances.any()


def test_utterances_without_a_part_are_named_with_the_reason(rng, tmp_path):
    store = make_store(
        tmp_path,
        [
            make_attribution(rng, id="whole"),
            make_attribution(rng, id="no-map", without=["encoder_saliency"]),
            make_attribution(rng, id="bare", without=["encoder_saliency", "cross_attention"]),
        ],
    )
    table = correlate(store, "encoder")
    assert table.ids == ("whole",)
    assert table.left_out == {
        "bare": "no encoder-output saliency and no cross-attention",
        "no-map": "no encoder-output saliency",
    }


@pytest.mark.parametrize(
    ("without", "target", "flags"),
    [
        (["encoder_saliency"], "encoder", "--explain encoder"),
        (["cross_attention"], "input", "--save-cross-attention"),
        (["cross_attention", "input_saliency"], "input", "--explain input --save-cross-attention"),
    ],
)
def test_store_without_a_part_names_itself_and_the_flag(rng, tmp_path, without, target, flags):
    store = make_store(tmp_path, [make_attribution(rng, without=without)])
    with pytest.raises(InputError, match=f"^{tmp_path}: 1 utterances without .* with {flags}$"):
        correlate(store, target)


def test_several_targets_in_one_reading(rng, tmp_path, monkeypatch):
    store = make_store(tmp_path, [make_attribution(rng, id=name) for name in "ab"])
    separate = {target: correlate(store, target, "2d-avg") for target in ("encoder", "input")}
    read, progress = [], []
    monkeypatch.setattr(store, "read", lambda name, old=store.read: read.append(name) or old(name))
    tables = correlate_targets(
        store,
        ("encoder", "input"),
        "2d-avg",
        progress=lambda *numbers: progress.append(numbers),
    )
    assert read == ["a", "b"]
    assert progress == [(1, 2), (2, 2)]
    assert list(tables) == ["encoder", "input"]
    for target, table in tables.items():
        np.testing.assert_array_equal(table.mean, separate[target].mean)
    assert (tables["input"].aggregation, tables["encoder"].aggregation) == ("2d-avg", None)


def test_absent_targets_can_be_left_away_but_not_all(rng, tmp_path):
    store = make_store(tmp_path, [make_attribution(rng, without=["encoder_saliency"])])
    assert list(correlate_targets(store, absent_is_error=False)) == ["input"]
    with pytest.raises(InputError, match="--explain encoder"):
        correlate_targets(store)
    with pytest.raises(InputError, match="--explain encoder"):
        correlate_targets(store, ["encoder"], absent_is_error=False)


def test_utterances_of_another_model_are_refused(rng, tmp_path):
    store = make_store(
        tmp_path, [make_attribution(rng, id="a"), make_attribution(rng, id="b", H=4)]
    )
    with pytest.raises(InputError, match="'b': 2 layers of 4 heads, expected 2 layers of 3 heads"):
        correlate(store, "input")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("output",), "target 'output': expected one of"),
        (("input", "max"), "aggregation 'max': expected one of"),
        (("input",), "no utterance in this store"),
    ],
)
def test_wrong_arguments_and_an_empty_store(tmp_path, arguments, message):
    with pytest.raises(InputError, match=message):
        correlate(make_store(tmp_path, []), *arguments)


def test_import_is_light():
    heavy = "{'torch', 'fairseq', 'matplotlib'} & {name.split('.')[0] for name in sys.modules}"
    code = f"import sys; from fbk_xattn.analysis import correlate; print({heavy}, end='')"
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(fbk_xattn.__file__).parents[1],
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout == "set()"
