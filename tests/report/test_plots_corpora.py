import warnings

import numpy as np
import pytest
from drawn import assert_tidy, written
from synthetic import make_attribution, make_store

from fbk_xattn.analysis import Bootstrap, CorrelationTable, Setting, correlate, correlate_tokens
from fbk_xattn.analysis.deletion import ScoredCurve
from fbk_xattn.errors import InputError
from fbk_xattn.report.figures import (
    KINDS,
    WIDTHS,
    draw_curves,
    draw_distribution,
    draw_heads,
    save_figure,
)
from fbk_xattn.report.figures.axes import COLOUR_BAR
from fbk_xattn.report.tables import cell_text


@pytest.fixture(autouse=True)
def no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def curve(map_name="input", score="wer_max", values=(10, 60, 100), languages=("en", "en"), **more):
    fields = {"mode": "deletion", "ids": ("u",), **more}
    return ScoredCurve(
        map_name=map_name, score=score, languages=languages,
        percentages=np.array([0, 50, 100]), scores=np.array(values, float), **fields,
    )  # fmt: skip


def legend(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


def panels(figure):
    return [axes for axes in figure.axes if axes.get_label() != COLOUR_BAR]


def table(mean, target="input", n_utterances=3):
    values = np.repeat(np.asarray(mean, float)[None], n_utterances, axis=0)
    ids = tuple(map(str, range(n_utterances)))
    return CorrelationTable(target, "2d-max" if target == "input" else None, ids, values)


def test_curves_are_those_of_the_analysis_with_their_areas():
    curves = [
        ("a", curve()),
        ("b", curve("cross-attention", values=(10, 20, 90))),
        ("a", curve(score="bleu", values=(30, 10, 0), languages=("en", "it"))),
        ("c", curve(mode="insertion", values=(100, 50, 10))),
    ]
    figure = draw_curves(curves)
    asr, st, insertion = panels(figure)
    assert legend(asr) == ["input: 57.50", "cross-attention: 35.00"]
    assert [line.get_ydata().tolist() for line in asr.lines] == [[10, 60, 100], [10, 20, 90]]
    assert asr.lines[0].get_xdata().tolist() == [0, 50, 100]
    assert (asr.get_ylim(), asr.get_xlabel()) == ((0, 100), "units removed (%)")
    assert asr.get_legend().get_title().get_text() == "AUC (higher is better)"
    assert st.get_legend().get_title().get_text() == "AUC (lower is better)"
    assert legend(st) == ["input: 12.50"]
    assert insertion.get_xlabel() == "units kept (%)"
    # A map has one colour in all panels, and no two of a panel look the same.
    assert st.lines[0].get_color() == asr.lines[0].get_color()
    assert len({(line.get_color(), line.get_linestyle()) for line in asr.lines}) == 2
    for title in ("Deletion, ASR en", "Deletion, ST en-it", "Insertion, ASR en"):
        assert title in written(figure)
    assert_tidy(figure)


def test_curves_of_one_map_are_named_after_their_folders():
    figure = draw_curves([("x/small", curve()), ("y/small", curve()), ("x/big", curve("encoder"))])
    assert legend(panels(figure)[0]) == [
        "input (x/small): 57.50",
        "input (y/small): 57.50",
        "encoder: 57.50",
    ]


@pytest.mark.parametrize("width", WIDTHS.values())
def test_many_curves_with_long_names_are_tidy(width):
    maps = [f"$map_{number} " + "of a very long name" * 4 for number in range(9)]
    figure = draw_curves([("f", curve(name)) for name in maps], width=width)
    assert_tidy(figure)
    lines = panels(figure)[0].lines
    assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == 9


def test_heat_map_has_the_numbers_of_the_table(rng, tmp_path):
    store = make_store(tmp_path, [make_attribution(rng, id=name) for name in "abc"])
    tables = [("", correlate(store, target)) for target in ("input", "encoder")]
    figure = draw_heads(tables)
    for axes, (_, one) in zip(panels(figure), tables, strict=True):
        numbers = [text.get_text().replace("\N{MINUS SIGN}", "-") for text in axes.texts]
        assert numbers == [cell_text(value) for value in one.mean.ravel()]
        cells = axes.collections[0].get_array()
        # Averages are set apart by cells without value.
        shown = np.delete(np.delete(cells, one.n_layers, 0), one.n_heads, 1)
        np.testing.assert_array_equal(shown, one.mean)
        assert np.ma.getmaskarray(cells).sum() == one.n_layers + one.n_heads + 3
        bold = [text.get_text() for text in axes.texts if text.get_weight() == "bold"]
        assert bold == [cell_text(one.mean.max()).replace("-", "\N{MINUS SIGN}")]
        low, high = one.interval(Bootstrap())[:, -1, -1]
        assert f"[{low:.3f}, {high:.3f}]" in written(figure)
    assert "mean over 3 utterances" in written(figure)
    assert "mean over" not in written(draw_heads(tables, header=False))
    assert_tidy(figure)


def test_scales_are_own_or_the_same():
    tables = [("", table([[0.1, 0.2], [0.3, 0.4]])), ("", table([[-0.5, 0], [0, 0]], "encoder"))]
    own = [axes.collections[0].get_clim() for axes in panels(draw_heads(tables))]
    assert np.ravel(own) == pytest.approx([0.1, 0.4, -0.5, 0.0])
    same = [axes.collections[0].get_clim() for axes in panels(draw_heads(tables, same_scale=True))]
    assert np.ravel(same) == pytest.approx([-0.5, 0.4] * 2)


@pytest.mark.parametrize("width", WIDTHS.values())
@pytest.mark.parametrize(("layers", "heads"), [(6, 8), (12, 16), (1, 1), (24, 40)])
def test_heat_maps_of_any_model_are_tidy(rng, width, layers, heads):
    mean = rng.uniform(-1, 1, (layers + 1, heads + 1))
    figure = draw_heads([("s $x$", table(mean)), ("s $x$", table(mean, "encoder"))], width=width)
    assert_tidy(figure)
    has_room = width / (heads + 2) > 0.33
    assert bool(panels(figure)[0].texts) == has_room
    side_by_side = len({axes.get_position().y0 for axes in panels(figure)}) == 1
    # As in the paper: the base model has 6 layers of 8 heads.
    assert side_by_side == (heads == 1 or (heads == 8 and width > 5))


def test_numbers_of_the_paper_s_models_have_room_in_a_column(rng):
    mean = rng.uniform(0, 1, (7, 9))
    figure = draw_heads([("", table(mean)), ("", table(mean, "encoder"))], width=WIDTHS["column"])
    assert [len(axes.texts) for axes in panels(figure)] == [63, 63]
    assert_tidy(figure)


def test_undefined_cells_say_so():
    figure = draw_heads([("", table([[np.nan, 0.2], [0.3, 0.4]]))])
    assert [text.get_text() for text in panels(figure)[0].texts] == [
        "n/a", "0.200", "0.300", "0.400",
    ]  # fmt: skip
    nothing = draw_heads([("", table([[np.nan] * 2] * 2))])
    assert {text.get_text() for text in panels(nothing)[0].texts} == {"n/a"}


@pytest.fixture
def tokens(rng, tmp_path):
    store = make_store(tmp_path / "s", [make_attribution(rng, id=name, S=12) for name in "abc"])
    return correlate_tokens(store, [Setting("input"), Setting("encoder")])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("width", WIDTHS.values())
def test_distributions_are_tidy(tokens, kind, width, tmp_path):
    figure = draw_distribution([("", one) for one in tokens], kind=kind, width=width)
    assert_tidy(figure)
    assert "30 tokens of 3 utterances" in written(figure)
    assert len({axes.get_ylim() for axes in figure.axes}) == 1
    save_figure(figure, tmp_path / "a.pdf")


def test_boxes_are_the_percentiles_of_the_table(tokens):
    (axes,) = draw_distribution([("", tokens[1])], kind="box").axes
    for row in range(3):
        summary = tokens[1].summary(row)
        low, first, median, third, high = summary.quantiles
        heights = {round(float(y), 9) for line in axes.lines for y in np.ravel(line.get_ydata())}
        assert {round(value, 9) for value in (low, first, median, third, high)} <= heights
        assert round(summary.mean, 9) in heights
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "2", "all"]


def test_violins_mark_mean_and_median(tokens):
    (axes,) = draw_distribution([("", tokens[0])]).axes
    points = {line.get_marker(): [] for line in axes.lines}
    for line in axes.lines:
        points[line.get_marker()].append(float(np.ravel(line.get_ydata())[0]))
    summaries = [tokens[0].summary(row) for row in range(3)]
    assert points["D"] == pytest.approx([summary.mean for summary in summaries])
    assert points["o"] == pytest.approx([summary.quantiles[2] for summary in summaries])
    bodies = [body.get_paths()[0].vertices[:, 1] for body in axes.collections]
    for body, values in zip(bodies, tokens[0].correlation, strict=True):
        assert (body.min(), body.max()) == pytest.approx((values.min(), values.max()))


def test_ecdf_has_a_line_a_layer(tokens):
    (axes,) = draw_distribution([("", tokens[0])], kind="ecdf").axes
    assert legend(axes) == ["layer 1", "layer 2", "all layers"]
    for line, values in zip(axes.lines, tokens[0].correlation, strict=True):
        assert sorted(line.get_xdata())[1:] == pytest.approx(sorted(values))
        assert line.get_ydata()[-1] == 1


def test_undefined_and_equal_correlations_are_drawn(tokens):
    from dataclasses import replace

    values = np.full_like(tokens[0].correlation, 0.5)
    values[:, 3] = np.nan
    odd = replace(tokens[0], correlation=values)
    for kind in KINDS:
        figure = draw_distribution([("", odd)], kind=kind)
        figure.draw_without_rendering()
        assert "30 tokens of 3 utterances, 1 of them undefined." in written(figure)
    empty = replace(odd, correlation=values * np.nan)
    figure = draw_distribution([("a", empty), ("b", odd)])
    assert len(panels(figure)) == 1
    assert "b: Input saliency" in written(figure)
    said = "a: no correlation with input saliency is defined for any of 30 tokens; expected"
    with pytest.raises(InputError, match=said):
        draw_distribution([("a", empty)])


def test_nothing_to_draw_is_input_error(tokens):
    for draw in (draw_curves, draw_heads, draw_distribution):
        with pytest.raises(InputError, match="to draw, expected at least one"):
            draw([])
        with pytest.raises(InputError, match="width 99 in: expected 2 to 40"):
            draw({draw_curves: [("", curve())], draw_heads: [("", table(np.eye(2)))]}.get(
                draw, [("", tokens[0])]), width=99)  # fmt: skip
    with pytest.raises(InputError, match="kind 'pie': expected one of violin, box, ecdf"):
        draw_distribution([("", tokens[0])], kind="pie")
