import csv
import io
import re

import numpy as np
import pytest

from fbk_xattn.analysis import CorrelationTable
from fbk_xattn.errors import InputError
from fbk_xattn.report import render

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


def test_csv_of_tables_of_different_models_is_refused():
    other = make_table(per_utterance=np.zeros((2, 2, 2)))
    with pytest.raises(ValueError, match=r"tables of \[1, 2\] heads"):
        render([make_table(), other], "csv")


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
