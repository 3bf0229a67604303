import numpy as np
import pytest
import scipy.stats
from synthetic import make_attribution, make_store

from fbk_xattn.analysis import (
    Bootstrap,
    Setting,
    TokenTable,
    correlate_tokens,
    frame_wise,
    mean_cross_attention,
    mean_std,
    saliency_map,
)
from fbk_xattn.errors import InputError


def make_table(**fields):
    values = {
        "setting": Setting("encoder"),
        "ids": ("a", "b"),
        "utterance": np.array([0, 0, 0, 1]),
        "tokens": ("▁a", "bcd", "▁", "▁efghij"),
        "position": np.array([1 / 6, 0.5, 5 / 6, 0.5]),
        "correlation": np.array([[0.0, 0.0, 0.0, 0.0], [0.25, 0.75, np.nan, -0.5]]),
    }
    return TokenTable(**(values | fields))


@pytest.mark.parametrize("normalize", ["both", "none", "cross-attention"])
@pytest.mark.parametrize("target", ["input", "encoder"])
def test_equals_scipy_token_by_token(rng, tmp_path, target, normalize):
    attributions = [make_attribution(rng, id=f"u{n}", S=5 + n) for n in range(3)]
    setting = Setting(target, normalize=normalize)
    (table,) = correlate_tokens(make_store(tmp_path, attributions), [setting])
    assert table.correlation.shape == (3, 3 + 4 + 5)
    column = 0
    for number, attribution in enumerate(attributions):
        weights = attribution.cross_attention[:, :, 1:-1].astype(float)
        layers = [*weights.mean(axis=1), weights.mean(axis=(0, 1))]
        saliency = attribution.encoder_saliency[1:-1]
        if target == "input":
            dense = attribution.input_saliency.dense()[1:-1].max(axis=2)
            saliency = np.stack([dense[:, i : i + 4].max(axis=1) for i in range(0, 22, 4)], axis=1)
        for token in range(len(saliency)):
            for row, attention in enumerate(layers):
                standardised = (attention - attention.mean(0)) / attention.std(0)
                attention = attention if normalize == "none" else standardised
                expected = scipy.stats.pearsonr(attention[token], saliency[token]).statistic
                assert table.correlation[row, column] == pytest.approx(expected, abs=1e-9)
            assert table.utterance[column] == number
            assert table.tokens[column] == attribution.tokens[1 + token]
            assert table.position[column] == pytest.approx((token + 0.5) / len(saliency))
            column += 1


def test_length_and_start_of_word():
    table = make_table()
    assert table.length.tolist() == [1, 3, 0, 6]
    assert table.starts_word.tolist() == [True, False, True, True]


def test_groups_of_a_kind_hold_every_token_once():
    groups = {name: mask.tolist() for name, mask in make_table().groups().items()}
    assert groups == {
        "start of a word": [True, False, True, True],
        "inside a word": [False, True, False, False],
        "word mark alone": [False, False, True, False],
        "1 character": [True, False, False, False],
        "3 characters": [False, True, False, False],
        "6 or more characters": [False, False, False, True],
        "quarter 1 of the hypothesis": [True, False, False, False],
        "quarter 2 of the hypothesis": [False, False, False, False],
        "quarter 3 of the hypothesis": [False, True, False, True],
        "quarter 4 of the hypothesis": [False, False, True, False],
    }


def test_summary_counts_what_is_undefined():
    table = make_table()
    summary = table.summary(bootstrap=Bootstrap(seed=3))
    assert (summary.n_tokens, summary.n_undefined) == (4, 1)
    assert summary.mean == pytest.approx(0.5 / 3)
    assert summary.quantiles[2] == 0.25
    assert (summary.low, summary.high) == (-0.5, 0.5)  # one of the two utterances alone
    first = table.summary(0)
    assert (first.n_undefined, first.mean) == (0, 0)


def test_summary_of_no_token_is_undefined():
    summary = make_table().summary(chosen=np.zeros(4, bool))
    assert (summary.n_tokens, summary.n_undefined) == (0, 0)
    assert np.isnan([summary.mean, summary.low, summary.high, *summary.quantiles]).all()


def test_a_constant_row_is_undefined_and_stays_in_the_table(rng, tmp_path):
    attribution = make_attribution(rng, S=5)
    attribution.encoder_saliency[2] = 0.25
    (table,) = correlate_tokens(make_store(tmp_path, [attribution]), [Setting("encoder")])
    assert np.isnan(table.correlation).tolist() == [[False, True, False]] * 3


def test_utterances_without_a_part_are_left_out_with_the_reason(rng, tmp_path):
    store = make_store(
        tmp_path,
        [make_attribution(rng, id="a"), make_attribution(rng, id="b", without=["cross_attention"])],
    )
    (table,) = correlate_tokens(store, [Setting("input")])
    assert table.left_out == {"b": "no cross-attention"}
    assert table.ids == ("a",)


def test_a_store_without_the_target_names_the_flag(rng, tmp_path):
    store = make_store(tmp_path, [make_attribution(rng, without=["encoder_saliency"])])
    with pytest.raises(InputError, match="--explain encoder"):
        correlate_tokens(store, [Setting("encoder")])


def test_other_layers_are_refused(rng, tmp_path):
    store = make_store(
        tmp_path, [make_attribution(rng, id="a"), make_attribution(rng, id="b", L=3)]
    )
    with pytest.raises(InputError, match="'b': 3 layers, expected 2 as of 'a'"):
        correlate_tokens(store, [Setting("encoder")])


@pytest.mark.parametrize("joining", ["mean", "max"])
@pytest.mark.parametrize("normalize", ["both", "none"])
def test_words_are_joined_before_maps_are_standardised(rng, tmp_path, joining, normalize):
    tokens = ("<lang:de>", "▁ein", "▁Wo", "rt", "▁es", "ist", "</s>")
    attribution = make_attribution(rng, tokens=tokens)
    store = make_store(tmp_path, [attribution])
    setting = Setting("encoder", normalize=normalize)
    (table,) = correlate_tokens(store, [setting], words=joining)
    assert table.tokens == ("▁ein", "▁Wort", "▁esist")
    assert table.starts_word.all()
    join = {"mean": np.mean, "max": np.max}[joining]

    def joined(rows):
        return np.stack([join(rows[word], axis=0) for word in ([0], [1, 2], [3, 4])])

    attention = joined(mean_cross_attention(attribution))
    saliency = joined(saliency_map(attribution, "encoder"))
    if normalize == "both":
        attention, saliency = frame_wise(attention), mean_std(saliency)
    expected = [
        np.corrcoef(one, other)[0, 1] for one, other in zip(attention, saliency, strict=True)
    ]
    np.testing.assert_allclose(table.correlation[-1], expected)


def test_an_unknown_joining_is_input_error(rng, tmp_path):
    store = make_store(tmp_path, [make_attribution(rng)])
    with pytest.raises(InputError, match="joining 'sum': expected mean or max"):
        correlate_tokens(store, [Setting("encoder")], words="sum")
