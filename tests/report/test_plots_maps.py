import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from drawn import assert_tidy, texts_of, written
from synthetic import make_attribution

import fbk_xattn
from fbk_xattn.analysis import (
    correlate_utterance,
    frame_wise,
    mean_cross_attention,
    mean_std,
    saliency_map,
)
from fbk_xattn.analysis.words import join_rows, word_slices
from fbk_xattn.errors import InputError
from fbk_xattn.report.figures import WIDTHS, draw_maps
from fbk_xattn.report.figures.axes import COLOUR_BAR

TITLES = ("Input saliency", "Encoder-output saliency", "Cross-attention")
ODD_TEXTS = {
    "id": "a_b/$1_{<b>",
    "tokens": ("<lang:de>", "▁$x_1", r"\frac{", "_^$", "▁", "&amp;", "</s>"),
    "hypothesis": r"$x_1 \frac{ 5 $ and ^",
    "tgt_text": "",
}


@pytest.fixture(autouse=True)
def no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def panels(figure):
    """Return the axes that are no colour bars."""
    return [axes for axes in figure.axes if axes.get_label() != COLOUR_BAR]


def labels(axes):
    return [text.get_text() for text in axes.texts]


def values(axes):
    return np.asarray(axes.images[0].get_array())


def test_panels_hold_the_maps_that_are_correlated(rng):
    attribution = make_attribution(rng)
    figure = draw_maps([attribution])
    expected = [
        mean_std(saliency_map(attribution, "input")),
        mean_std(saliency_map(attribution, "encoder")),
        frame_wise(mean_cross_attention(attribution)),
    ]
    for axes, wanted in zip(panels(figure), expected, strict=True):
        np.testing.assert_array_equal(values(axes), wanted)
    for target in ("input", "encoder"):
        r = correlate_utterance(attribution, target)[-1, -1]
        assert f"r = {r:.3f} with cross-attention" in written(figure)
    for text in (*TITLES, "2d-max, standardised per token", "mean over all layers and heads"):
        assert text in written(figure)


def test_layers_heads_and_aggregation_can_be_chosen(rng):
    attribution = make_attribution(rng)
    figure = draw_maps([attribution], aggregation="2d-avg", layers=[1], heads=[0, 2])
    expected = attribution.cross_attention[1, [0, 2], 1:-1].astype(float).mean(axis=0)
    drawn = panels(figure)
    np.testing.assert_allclose(values(drawn[2]), frame_wise(expected))
    averaged = mean_std(saliency_map(attribution, "input", "2d-avg"))
    np.testing.assert_array_equal(values(drawn[0]), averaged)
    assert "2d-avg" in written(figure)
    assert "layer 2 and heads 1, 3" in written(figure)


def test_axes_are_seconds_by_content_tokens(rng):
    attribution = make_attribution(rng, T=22, tokens=("<lang:de>", *"abcde", "</s>"))
    drawn = panels(draw_maps([attribution]))
    assert [labels(axes) for axes in drawn] == [list("abcde"), [], []]
    assert [text.xy[1] for text in drawn[0].texts] == [0, 1, 2, 3, 4]
    for axes in drawn:
        assert axes.get_xlim() == pytest.approx((0, 0.22))
        assert axes.images[0].get_extent() == pytest.approx((0, 0.24, 4.5, -0.5))  # six whole steps
        assert axes.get_ylim() == (4.5, -0.5)


@pytest.mark.parametrize("joining", ["mean", "max"])
def test_words_are_joined_before_maps_are_standardised(rng, joining):
    tokens = ("<lang:de>", "▁ein", "▁", "Wo", "rt", "▁", "</s>")
    attribution = make_attribution(rng, tokens=tokens)
    figure = draw_maps([attribution], words=joining)
    drawn = panels(figure)
    assert labels(drawn[0]) == ["ein", "Wort", "_"]
    words = word_slices(tokens[1:-1])
    rows = join_rows(saliency_map(attribution, "encoder"), words, joining)
    np.testing.assert_allclose(values(drawn[1]), mean_std(rows))
    attention = join_rows(mean_cross_attention(attribution), words, joining)
    np.testing.assert_allclose(values(drawn[2]), frame_wise(attention))
    assert f"standardised per word ({joining})" in written(figure)


def test_same_scale_is_one_for_all_panels(rng):
    attributions = [make_attribution(rng), make_attribution(rng, id="b", T=40)]
    own = [axes.images[0].get_clim() for axes in panels(draw_maps(attributions))]
    figure = draw_maps(attributions, same_scale=True)
    limits = (min(low for low, _ in own), max(high for _, high in own))
    assert {axes.images[0].get_clim() for axes in panels(figure)} == {limits}
    assert len(set(own)) == 6
    assert len(figure.axes) == 7  # one colour bar


@pytest.mark.parametrize("arrangement", ["rows", "columns"])
def test_paired_tasks_share_time(rng, arrangement):
    asr = make_attribution(rng, id="en", S=6, T=22, tgt_lang="en")
    st = make_attribution(rng, id="it", S=9, T=30)
    figure = draw_maps([asr, st], arrangement=arrangement)
    drawn = panels(figure)
    assert len(drawn) == 6
    for axes in drawn:
        assert axes.get_xlim() == pytest.approx((0, 0.30))
    places = np.array([axes.get_position().bounds for axes in drawn]).round(6)
    assert len(set(places[:, 2])) == 1  # a second is as long in all panels
    assert len(set(places[:, 0])) == (3 if arrangement == "rows" else 2)
    assert "en (en → en)" in written(figure)
    assert "it (en → de)" in written(figure)
    assert_tidy(figure)


def test_texts_are_shown_as_they_are(rng):
    figure = draw_maps([make_attribution(rng, **ODD_TEXTS)])
    figure.canvas.draw()
    for text in ("a_b/$1_{<b> (en → de)", "(empty)", r"$x_1 \frac{ 5 $ and ^"):
        assert text in [shown.get_text() for shown in figure.texts]
    assert labels(panels(figure)[0]) == ["_$x_1", r"\frac{", "_^$", "_", "&amp;"]
    shown = [*figure.texts, *(text for axes in figure.axes for text in axes.texts)]
    assert not any(text.get_parse_math() for text in shown)


@pytest.mark.parametrize(
    ("without", "number", "flag"),
    [
        ("input_saliency", 0, "--explain input"),
        ("encoder_saliency", 1, "--explain encoder"),
        ("cross_attention", 2, "--save-cross-attention"),
    ],
)
def test_an_absent_map_leaves_a_panel_that_says_so(rng, without, number, flag):
    figure = draw_maps([make_attribution(rng, without=[without])])
    drawn = panels(figure)
    assert [len(axes.images) for axes in drawn] == [int(n != number) for n in range(3)]
    assert labels(drawn[number])[-1].replace("\n", " ") == f"not saved ({flag} saves it)"
    assert len(figure.axes) == 5  # two colour bars
    assert ("r = " in written(figure)) == (number != 2)


def test_norm_weighted_cross_attention_is_called_so(rng):
    attribution = make_attribution(rng)
    for stored in ("norms", "weights"):
        text = written(draw_maps([attribution], stored=[stored])).replace("\n", " ")
        assert ("Norm-weighted cross-attention" in text) == (stored == "norms")


def test_one_token_has_an_undefined_correlation(rng):
    assert "r undefined with cross-attention" in written(draw_maps([make_attribution(rng, S=3)]))


@pytest.mark.parametrize("width", WIDTHS.values())
@pytest.mark.parametrize("same_scale", [False, True])
def test_sixty_tokens_and_thirty_seconds_are_tidy(rng, width, same_scale):
    long = "a reference of many words that has to be broken into several lines " * 9
    tokens = ["▁internationalisation", "▁W" * 6, "c", "d" * 60, "▁Żółć", "gy"] * 10
    attribution = make_attribution(
        rng, S=62, T=3000, F=2, tgt_text=long, hypothesis=long,
        tokens=("<lang:de>", *tokens, "</s>"), frames_per_step=8,
    )  # fmt: skip
    figure = draw_maps([attribution], width=width, same_scale=same_scale)
    assert figure.get_figwidth() == width
    assert figure.get_figheight() < 13
    assert_tidy(figure)
    assert min(text.get_size() for text in texts_of(figure)) >= 6
    drawn = values(panels(figure)[1])
    step = len(drawn) // 60  # rows are repeated, so that no smoothing mixes tokens
    np.testing.assert_array_equal(drawn[::step], mean_std(saliency_map(attribution, "encoder")))


def test_without_header_no_text_of_the_utterance_is_left(rng):
    attribution = make_attribution(rng, id="secret")
    with_header, without = (draw_maps([attribution], header=flag) for flag in (True, False))
    assert "secret" in written(with_header)
    assert "secret" not in written(without)
    assert without.get_figheight() < with_header.get_figheight()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"S": 2}, "'a/1': nothing to plot, expected a token besides"),
        (
            {"without": ["cross_attention", "input_saliency", "encoder_saliency"]},
            "'a/1': nothing to plot, expected a saliency map or cross-attention",
        ),
    ],
)
def test_nothing_to_plot_is_input_error(rng, fields, message):
    with pytest.raises(InputError, match=message):
        draw_maps([make_attribution(rng, **fields)])


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"layers": [0, 2]}, "layer 3: expected 1 to 2"),
        ({"heads": [-1]}, "head 0: expected 1 to 3"),
        ({"layers": []}, "no layer or no head chosen"),
        ({"aggregation": "max"}, "aggregation 'max': expected one of"),
        ({"words": "sum"}, "joining 'sum': expected mean or max"),
        ({"arrangement": "pile"}, "arrangement 'pile': expected rows or columns"),
        ({"width": 1.0}, r"width 1 in: expected 2 to 40 in, or one of column \(3.3 in\)"),
        ({"width": float("nan")}, "width nan in"),
    ],
)
def test_wrong_choices_are_input_errors(rng, chosen, message):
    with pytest.raises(InputError, match=message):
        draw_maps([make_attribution(rng)], **chosen)


def test_no_utterance_is_input_error():
    with pytest.raises(InputError, match="no utterance to draw"):
        draw_maps([])


def test_reading_a_table_needs_no_matplotlib_and_drawing_no_pyplot():
    code = (
        "import sys; import fbk_xattn.cli.main; from fbk_xattn.report.figures import draw_maps; "
        "print('matplotlib' in sys.modules); "
        "sys.path.insert(0, 'tests'); import numpy; from synthetic import make_attribution; "
        "draw_maps([make_attribution(numpy.random.default_rng(0))]); "
        "print('matplotlib' in sys.modules, 'matplotlib.pyplot' in sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(fbk_xattn.__file__).parents[1],
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.split() == ["False", "True", "False"]
