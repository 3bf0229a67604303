import csv
import io
import re

import numpy as np
import pytest

from fbk_xattn.analysis import Bootstrap, CorrelationTable
from fbk_xattn.errors import InputError
from fbk_xattn.report import render
from fbk_xattn.report.grid import Grid, records_to_csv, render_grids
from fbk_xattn.report.tables import head_grid, layer_grid, probability_grid

NAN = np.nan
# Two layers of two heads, with averages; two utterances, whose mean is exact in binary.
FIRST = np.array([[0.125, -0.25, 0.5], [0.0, 0.875, 0.75], [0.25, 0.5, 0.625]])
SECOND = np.array([[0.375, -0.75, 0.5], [-0.0004, 0.875, NAN], [0.25, 0.5, 0.125]])
MEAN = [[0.25, -0.5, 0.5], [-0.0002, 0.875, 0.75], [0.25, 0.5, 0.375]]
SHOWN = [["0.250", "-0.500", "0.500"], ["0.000", "0.875", "0.750"], ["0.250", "0.500", "0.375"]]
LAYERS = ["1", "2", "avg"]


def make_table(**fields):
    values = {
        "target": "input",
        "aggregation": "2d-max",
        "ids": ("a_1", "b"),
        "per_utterance": np.stack([FIRST, SECOND]),
    }
    return CorrelationTable(**(values | fields))


def markdown_rows(text):
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith("|")
    ]


def latex_rows(text):
    body = text.split(r"\toprule")[1].split(r"\bottomrule")[0]
    rows = [line.removesuffix(r"\\").strip() for line in body.splitlines() if "&" in line]
    return [[cell.strip() for cell in row.split("&")] for row in rows]


def test_markdown_has_layers_by_heads_with_the_best_in_bold():
    header, rule, *rows = markdown_rows(render([make_table()], "markdown"))
    assert header == ["layer", "head 1", "head 2", "avg"]
    assert rule == ["---", "---:", "---:", "---:"]
    assert [row[0] for row in rows] == LAYERS
    assert rows[1][2] == "**0.875**"
    assert [[cell.strip("*") for cell in row[1:]] for row in rows] == SHOWN
    assert sum("**" in cell for row in rows for cell in row) == 1


def test_captions_tell_norm_weighted_cross_attention():
    weights, norms = make_table(), make_table(cross_attention="norms")
    plain = "Pearson correlation of cross-attention with input saliency"
    assert plain in render([weights], "markdown")
    assert plain.replace("of ", "of norm-weighted ") in render([norms], "markdown")
    both = layer_grid({"a": weights, "b": norms}, "store", "label", Bootstrap())
    assert "of cross-attention and norm-weighted cross-attention with" in both.caption(str)


def test_latex_has_layers_by_heads_with_the_best_in_bold():
    text = render([make_table()], "latex")
    header, *rows = latex_rows(text)
    assert header == ["layer", "h1", "h2", "avg"]
    assert [row[0] for row in rows] == LAYERS
    assert rows[1][2] == r"\textbf{0.875}"
    assert rows[0][2] == "$-$0.500"
    plain = [[re.sub(r"\\textbf{(.*)}", r"\1", c).replace("$", "") for c in r[1:]] for r in rows]
    assert plain == SHOWN
    assert text.count(r"\textbf") == 1
    assert r"\begin{tabular}{lrrr}" in text
    for environment in ("table", "tabular"):
        assert text.count(rf"\begin{{{environment}}}") == 1
        assert text.count(rf"\end{{{environment}}}") == 1


def test_csv_has_full_precision_and_counts():
    encoder = make_table(target="encoder", aggregation=None, left_out={"c": "no cross-attention"})
    encoder.per_utterance[...] = 1 / 3
    rows = list(csv.DictReader(io.StringIO(render([make_table(), encoder], "csv"))))
    assert [row["layer"] for row in rows] == LAYERS * 2
    assert [row["target"] for row in rows] == ["input"] * 3 + ["encoder"] * 3
    assert [row["aggregation"] for row in rows] == ["2d-max"] * 3 + [""] * 3
    values = [[float(row[name]) for name in ("head_1", "head_2", "avg")] for row in rows]
    assert values == MEAN + [[1 / 3] * 3] * 3
    counts = {
        (row["target"], row["n_utterances"], row["n_undefined"], row["n_left_out"]) for row in rows
    }
    assert counts == {("input", "2", "1", "0"), ("encoder", "2", "0", "1")}


def test_csv_of_tables_of_different_models_has_the_heads_of_all():
    other = make_table(per_utterance=np.zeros((2, 2, 2)))
    rows = list(csv.DictReader(io.StringIO(render([make_table(), other], "csv"))))
    assert [row["head_2"] for row in rows[3:]] == ["", ""]
    assert [row["head_1"] for row in rows[3:]] == ["0.0", "0.0"]


def test_undefined_means_are_shown_as_such():
    table = make_table(per_utterance=np.stack([SECOND, SECOND]))
    assert markdown_rows(render([table], "markdown"))[3][3] == "n/a"
    assert latex_rows(render([table], "latex"))[2][3] == "n/a"
    row = list(csv.DictReader(io.StringIO(render([table], "csv"))))[1]
    assert np.isnan(float(row["avg"]))


def test_a_table_without_any_defined_mean_has_no_best():
    table = make_table(per_utterance=np.full((2, 3, 3), NAN))
    rows = markdown_rows(render([table], "markdown"))[2:]
    assert [row[1:] for row in rows] == [["n/a"] * 3] * 3


@pytest.mark.parametrize("form", ["markdown", "latex"])
def test_caption_tells_what_the_numbers_are(form):
    text = render([make_table()], form)
    assert "cross-attention with input saliency, aggregated with 2d-max: mean" in text
    assert "mean over the defined values of 2 utterances." in text
    assert "Undefined in at least one cell: 1 utterance (" in text
    assert "Left out" not in text


@pytest.mark.parametrize("form", ["markdown", "latex"])
def test_caption_of_the_encoder_output_has_no_aggregation_and_no_undefined(form):
    table = make_table(target="encoder", aggregation=None, ids=("a",), per_utterance=FIRST[None])
    text = render([table], form)
    assert "cross-attention with encoder-output saliency: mean over 1 utterance." in text
    assert "Undefined" not in text


def test_caption_names_five_utterances_and_counts_the_rest():
    left_out = {f"u{n}": "no cross-attention" for n in range(7)}
    text = render([make_table(left_out=left_out)], "markdown")
    assert "Left out: 7 utterances (`u0`: no cross-attention, " in text
    assert "`u4`: no cross-attention and 2 more)." in text
    assert "u5" not in text


def test_ids_are_quoted_for_the_format():
    assert "(`a_1`)" not in render([make_table()], "markdown")  # a_1 is defined everywhere
    table = make_table(ids=(r"b", r"a_1&{\}"))
    assert r"(`a_1&{\}`)" in render([table], "markdown")
    assert r"(a\_1\&\{\textbackslash{}\})" in render([table], "latex")


def test_latex_prints_signs_that_its_default_encoding_lacks():
    text = render_grids([head_grid(make_table(), "a|b<c>d")], "latex")
    assert r"a\textbar{}b\textless{}c\textgreater{}d" in text


def test_tables_follow_each_other():
    encoder = make_table(target="encoder", aggregation=None)
    assert len(markdown_rows(render([make_table(), encoder], "markdown"))) == 10
    latex = render([make_table(), encoder], "latex")
    assert re.findall(r"\\label{(.*)}", latex) == [
        "tab:correlation-input",
        "tab:correlation-encoder",
    ]


def test_unknown_format_is_input_error():
    with pytest.raises(InputError, match="format 'html': expected one of markdown, csv, latex"):
        render([make_table()], "html")


def test_terminal_aligns_columns_and_stars_the_best():
    *_, header, rule, first, second, other_rule, average = render(
        [make_table()], "terminal"
    ).splitlines()
    assert header.split() == ["layer", "head", "1", "head", "2", "avg"]
    assert rule == other_rule == "-" * len(rule)
    assert [line.split() for line in (first, second, average)] == [
        ["1", *SHOWN[0]],
        ["2", "0.000", "0.875*", "0.750"],
        ["avg", *SHOWN[2]],
    ]
    assert first.index("-0.500") + 6 == second.index("0.875*") + 5  # the star is beside


def test_head_grid_says_its_store_and_the_interval():
    grid = head_grid(make_table(), "base_1", Bootstrap(n_resamples=100, seed=7))
    text = render_grids([grid], "latex")
    assert r"\caption{base\_1: Pearson correlation" in text
    assert r"\label{tab:correlation-input-base-1}" in text
    low, high = make_table().interval(Bootstrap(n_resamples=100, seed=7))[:, -1, -1]
    said = f"{low:.3f}, {high:.3f}], 95-percent bootstrap interval over utterances (100 resamples"
    assert said in text
    row = next(csv.DictReader(io.StringIO(render_grids([grid], "csv"))))
    assert (row["store"], row["coefficient"], row["normalize"]) == ("base_1", "pearson", "both")
    assert float(row["avg_low"]) <= float(row["avg"]) <= float(row["avg_high"])


def test_caption_says_what_was_varied():
    table = make_table(normalize="none", coefficient="kendall")
    text = render([table], "markdown")
    assert text.startswith(
        "Kendall correlation of cross-attention with input saliency, aggregated with 2d-max, "
        "neither map standardised: mean over"
    )


def layers(*means):
    """Two utterances whose layer means (last: overall) are these; heads do not matter."""
    values = np.zeros((2, len(means), 3))
    values[:, :, -1] = means
    values[0, :, -1] -= 0.125
    values[1, :, -1] += 0.125
    return make_table(per_utterance=values)


def test_layer_grid_marks_the_best_layer_of_each_column_and_sets_the_overall_apart():
    columns = {"small": layers(0.25, 0.5, 0.75), "base": layers(0.5, 0.25, 0.125, 0.375)}
    grid = layer_grid(columns, "model", "layers-input", Bootstrap(seed=1))
    assert grid.header == ("layer", "small", "base")
    assert [row[0] for row in grid.rows] == ["1", "2", "3", "overall"]
    assert [row[1].split(" ")[0] for row in grid.rows] == ["0.250", "0.500", "", "0.750"]
    assert [row[2].split(" ")[0] for row in grid.rows] == ["0.500", "0.250", "0.125", "0.375"]
    assert grid.rows[0][1] == "0.250 [0.125, 0.375]"
    assert grid.best == {(1, 1), (0, 2)}
    assert grid.rules == {3}
    records = [r for r in grid.records if r["model"] == "small"]
    assert [r["layer"] for r in records] == ["1", "2", "overall"]
    assert [r["best"] for r in records] == [0, 1, 0]
    assert (records[0]["low"], records[0]["correlation"], records[0]["high"]) == (
        0.125,
        0.25,
        0.375,
    )


def test_layer_grid_counts_what_each_column_is_without():
    table = make_table(left_out={"c": "no cross-attention"})
    text = render_grids([layer_grid({"m": table}, "model", "x")], "markdown")
    assert "Mean over `m`: 2 utterances." in text
    assert "`m`: Undefined in at least one cell: 1 utterance (`b`)." in text
    assert "`m`: Left out: 1 utterance (`c`: no cross-attention)." in text


def test_probability_grid_is_in_rising_order_and_of_the_same_utterances():
    tables = {0.7: ("s7", layers(0.5, 0.5)), 0.3: ("s3", layers(0.25, 0.25))}
    grid = probability_grid(tables, "input", Bootstrap())
    assert grid.header == ("layer", "0.3", "0.7")
    assert grid.rows[0][1].startswith("0.250")
    tables[0.5] = ("s5", make_table(ids=("a_1", "other")))
    with pytest.raises(InputError, match="without 1 utterances of the other stores"):
        probability_grid(tables, "input", Bootstrap())


def test_cells_with_pipes_stay_one_cell_in_markdown():
    grid = Grid(lambda _: "x", "x", ("a", "b|c"), (("1", "2"),))
    assert r"| a | b\|c |" in render_grids([grid], "markdown")


def test_labels_of_one_document_are_all_different():
    names = ("run_1", "run-1", "模型一", "模型二", "run-1-2")
    grids = [Grid(lambda _: "x", name, ("a",), (("1",),)) for name in names]
    labels = re.findall(r"\\label{tab:(.*)}", render_grids(grids, "latex"))
    assert labels == ["run-1", "run-1-2", "-", "--2", "run-1-2-2"]


@pytest.mark.parametrize("name", ["[base]", "*"])
def test_names_are_no_options_of_the_latex_before_them(name):
    grid = Grid(lambda _: "x", "x", (name, "r"), ((name, "1"), (name, "2")), rules=frozenset({1}))
    text = render_grids([grid], "latex")
    assert text.count("\n{}" + name) == 3


def test_every_end_of_line_is_quoted_in_csv():
    rows = [{"a": "x\ry", "b": "x\ny"}, {"a": "\r\n", "b": "x"}]
    text = records_to_csv(rows)
    assert text.splitlines(keepends=True)[0] == "a,b\n"
    assert list(csv.DictReader(io.StringIO(text, newline=""))) == rows
