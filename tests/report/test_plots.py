import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from synthetic import make_attribution

import fbk_xattn
from fbk_xattn.analysis import (
    correlate_utterance,
    frame_wise,
    mean_cross_attention,
    mean_std,
    saliency_map,
)
from fbk_xattn.errors import InputError
from fbk_xattn.report import draw_attribution, plot_attribution

ODD_TEXTS = {
    "id": "a_b/$1_{",
    "tokens": ("<lang:de>", "▁$x_1", r"\frac{", "_^$", "▁", "ö", "</s>"),
    "hypothesis": r"$x_1 \frac{ 5 $ and ^",
    "tgt_text": "",
}


def panels(figure):
    """Return the three panels; the other axes are colour bars."""
    return [axes for axes in figure.axes if axes.get_title(loc="left")]


def words(axes):
    return "\n".join(text.get_text() for text in axes.texts)


def test_panels_hold_the_maps_that_are_correlated(rng):
    attribution = make_attribution(rng)
    drawn = panels(draw_attribution(attribution))
    assert [axes.get_title(loc="left") for axes in drawn] == [
        "Input saliency",
        "Encoder-output saliency",
        "Cross-attention",
    ]
    expected = [
        mean_std(saliency_map(attribution, "input")),
        mean_std(saliency_map(attribution, "encoder")),
        frame_wise(mean_cross_attention(attribution)),
    ]
    for axes, values in zip(drawn, expected, strict=True):
        np.testing.assert_array_equal(axes.images[0].get_array(), values)
    for axes, target in zip(drawn, ["input", "encoder"], strict=False):
        r = correlate_utterance(attribution, target)[-1, -1]
        assert f"correlation with cross-attention: {r:.3f}" in words(axes)
    assert "2d-max, standardised per token" in words(drawn[0])
    assert "mean over all layers and heads" in words(drawn[2])


def test_layers_heads_and_aggregation_can_be_chosen(rng):
    attribution = make_attribution(rng)
    figure = draw_attribution(attribution, aggregation="2d-avg", layers=[1], heads=[0, 2])
    drawn = panels(figure)
    expected = attribution.cross_attention[1, [0, 2], 1:-1].astype(float).mean(axis=0)
    np.testing.assert_allclose(drawn[2].images[0].get_array(), frame_wise(expected))
    averaged = mean_std(saliency_map(attribution, "input", "2d-avg"))
    np.testing.assert_array_equal(drawn[0].images[0].get_array(), averaged)
    assert "2d-avg" in words(drawn[0])
    assert "layer 2 and heads 1, 3" in words(drawn[2])


def test_axes_are_seconds_by_content_tokens(rng):
    attribution = make_attribution(rng, T=22, tokens=("<lang:de>", *"abcde", "</s>"))
    drawn = panels(draw_attribution(attribution))
    labels = [[label.get_text() for label in axes.get_yticklabels()] for axes in drawn]
    assert labels == [list("abcde"), [""] * 5, [""] * 5]
    for axes in drawn:
        assert axes.get_xlim() == pytest.approx((0, 0.22))
        assert axes.images[0].get_extent() == pytest.approx((0, 0.24, 4.5, -0.5))  # six whole steps
        assert axes.get_ylim() == (4.5, -0.5)


def test_texts_are_shown_as_they_are(rng):
    figure = draw_attribution(make_attribution(rng, **ODD_TEXTS))
    figure.canvas.draw()
    texts = [text.get_text() for text in figure.texts]
    assert texts == [
        "a_b/$1_{   (en → de)",
        "Reference",
        "(empty)",
        "Hypothesis",
        r"$x_1 \frac{ 5 $ and ^",
    ]
    labels = panels(figure)[0].get_yticklabels()
    assert [label.get_text() for label in labels] == ["_$x_1", r"\frac{", "_^$", "_", "ö"]
    assert not any(text.get_parse_math() for text in [*figure.texts, *labels])


def test_no_glyph_is_missing_for_sentencepiece_tokens(rng):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw_attribution(make_attribution(rng)).canvas.draw()


@pytest.mark.parametrize(
    ("without", "number", "flag"),
    [
        ("input_saliency", 0, "--explain input"),
        ("encoder_saliency", 1, "--explain encoder"),
        ("cross_attention", 2, "--save-cross-attention"),
    ],
)
def test_an_absent_map_leaves_a_panel_that_says_so(rng, without, number, flag):
    figure = draw_attribution(make_attribution(rng, without=[without]))
    drawn = panels(figure)
    assert [len(axes.images) for axes in drawn] == [int(n != number) for n in range(3)]
    assert words(drawn[number]) == f"not saved ({flag} saves it)"
    assert len(figure.axes) == 5  # two colour bars
    assert ("correlation" in words(drawn[0]) + words(drawn[1])) == (number != 2)


def test_input_saliency_alone_is_drawn_at_encoder_steps(rng):
    attribution = make_attribution(rng, T=22, without=["cross_attention", "encoder_saliency"])
    assert panels(draw_attribution(attribution))[0].images[0].get_array().shape == (5, 6)


def test_one_token_has_an_undefined_correlation(rng):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawn = panels(draw_attribution(make_attribution(rng, S=3)))
    assert "correlation with cross-attention: undefined" in words(drawn[0])


def test_size_grows_with_tokens_and_time(rng):
    short = draw_attribution(make_attribution(rng, S=12, T=100))
    long = draw_attribution(make_attribution(rng, S=62, T=3000, F=2))
    assert panels(short)[0].get_position().height * short.get_figheight() >= 10 * 0.19 - 1e-9
    assert panels(long)[0].get_position().height * long.get_figheight() >= 60 * 0.19 - 1e-9
    assert panels(long)[0].get_position().width * long.get_figwidth() > 5
    assert long.get_figwidth() < 25


def test_nothing_sticks_out_or_overlaps(rng):
    long = "a reference of many words that has to be broken into several lines " * 9
    tokens = ("<lang:de>", "▁internationalisation", "▁W" * 6, "c", "d" * 60, "▁e", "</s>")
    figure = draw_attribution(make_attribution(rng, tgt_text=long, hypothesis=long, tokens=tokens))
    figure.canvas.draw()
    boxes = [text.get_window_extent() for text in figure.texts]
    boxes += [label.get_window_extent() for label in panels(figure)[0].get_yticklabels()]
    whole = figure.bbox
    for box in boxes:
        assert box.x0 >= 0
        assert box.x1 <= whole.x1
        assert box.y1 <= whole.y1
    lowest_line = min(text.get_window_extent().y0 for text in figure.texts)
    assert all(axes._left_title.get_window_extent().y1 < lowest_line for axes in panels(figure))
    assert all(axes.get_tightbbox().y0 >= 0 for axes in figure.axes)


@pytest.mark.parametrize(
    ("suffix", "start"), [(".png", b"\x89PNG"), (".svg", b"<?xml"), (".PDF", b"%PDF")]
)
def test_suffix_says_the_format(rng, tmp_path, suffix, start):
    file = tmp_path / "new" / f"figure{suffix}"
    plot_attribution(make_attribution(rng, **ODD_TEXTS), file)
    assert file.read_bytes().startswith(start)
    assert list(file.parent.iterdir()) == [file]


@pytest.mark.parametrize("name", ["figure.jpg", "figure"])
def test_another_suffix_is_input_error(rng, tmp_path, name):
    with pytest.raises(
        InputError, match=f"{name}: expected a file name ending in .png, .svg, .pdf"
    ):
        plot_attribution(make_attribution(rng), tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_failed_write_leaves_the_old_file_and_nothing_else(rng, tmp_path, monkeypatch):
    file = tmp_path / "figure.png"
    file.write_text("old")

    def full_disk(_figure, path, **_):
        Path(path).write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Figure, "savefig", full_disk)
    with pytest.raises(InputError, match=r"figure.png: cannot be written \(No space left"):
        plot_attribution(make_attribution(rng), file)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


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
        draw_attribution(make_attribution(rng, **fields))


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"layers": [0, 2]}, "layer 3: expected 1 to 2"),
        ({"heads": [-1]}, "head 0: expected 1 to 3"),
        ({"layers": []}, "no layer or no head chosen"),
        ({"aggregation": "max"}, "aggregation 'max': expected one of"),
    ],
)
def test_wrong_choices_are_input_errors(rng, chosen, message):
    with pytest.raises(InputError, match=message):
        draw_attribution(make_attribution(rng), **chosen)


def test_reading_a_table_needs_no_matplotlib_and_plotting_no_pyplot():
    code = (
        "import sys; import fbk_xattn.report; "
        "print('matplotlib' in sys.modules); "
        "sys.path.insert(0, 'tests'); import numpy; from synthetic import make_attribution; "
        "fbk_xattn.report.draw_attribution(make_attribution(numpy.random.default_rng(0))); "
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
