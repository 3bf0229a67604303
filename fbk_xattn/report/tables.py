"""Correlation tables as Markdown, CSV and LaTeX: layers by heads (paper, Table 1)."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from fbk_xattn.analysis.maps import NAMES
from fbk_xattn.analysis.table import CorrelationTable
from fbk_xattn.errors import InputError

UNDEFINED = "n/a"
AVERAGE = "avg"
NAMED_AT_MOST = 5
LATEX_SPECIAL = {
    "\\": r"\textbackslash{}",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
}


def render(tables: Sequence[CorrelationTable], form: str) -> str:
    """Render tables one after the other; in CSV they are one table with a ``target`` column.

    Args:
        tables: Tables of one store.
        form: Name in :data:`FORMATS`.

    Raises:
        InputError: ``form`` is not the name of a format.
    """
    if form not in FORMATS:
        raise InputError(f"format {form!r}: expected one of {', '.join(FORMATS)}")
    return FORMATS[form](tables)


def to_markdown(tables: Sequence[CorrelationTable]) -> str:
    """Render in Markdown, three decimals, the best cell of each table in bold."""
    return "\n".join(_markdown(table) for table in tables)


def to_latex(tables: Sequence[CorrelationTable]) -> str:
    """Render as LaTeX ``table`` environments for booktabs, the best cell of each in bold."""
    return "% needs \\usepackage{booktabs}\n" + "\n".join(_latex(table) for table in tables)


def to_csv(tables: Sequence[CorrelationTable]) -> str:
    """Render as one CSV in full precision.

    Columns: ``target``, ``aggregation`` (empty for the encoder output), ``layer`` (from 1, or
    ``avg``), ``head_1`` to ``head_H``, ``avg``, and of the whole table the number of utterances
    ``n_utterances``, of those with an undefined cell ``n_undefined``, and of those left out of it
    ``n_left_out``. Undefined values are ``nan``.

    Raises:
        ValueError: The tables differ in their number of heads.
    """
    n_heads = {table.n_heads for table in tables}
    if len(n_heads) > 1:
        raise ValueError(f"tables of {sorted(n_heads)} heads, expected the same number in all")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    heads = [f"head_{head}" for head in range(1, max(n_heads, default=0) + 1)]
    counts = ["n_utterances", "n_undefined", "n_left_out"]
    writer.writerow(["target", "aggregation", "layer", *heads, AVERAGE, *counts])
    for table in tables:
        for layer, values in zip(_names(table.n_layers), table.mean, strict=True):
            writer.writerow(
                [
                    table.target,
                    table.aggregation or "",
                    layer,
                    *(repr(float(value)) for value in values),
                    len(table.ids),
                    len(table.undefined_ids),
                    len(table.left_out),
                ]
            )
    return text.getvalue()


FORMATS: Mapping[str, Callable[[Sequence[CorrelationTable]], str]] = {
    "markdown": to_markdown,
    "csv": to_csv,
    "latex": to_latex,
}


def caption(table: CorrelationTable, quote: Callable[[str], str] = str) -> str:
    """Say what the numbers are, of how many utterances, and which of them are missing where.

    Args:
        table: The table.
        quote: Applied to each utterance id.
    """
    aggregated = f", aggregated with {table.aggregation}" if table.aggregation else ""
    undefined = table.undefined_ids
    parts = [
        f"Pearson correlation of cross-attention with {NAMES[table.target]}{aggregated}: mean over "
        f"{'the defined values of ' if undefined else ''}{_count(len(table.ids))}.",
        "Last column and row: cross-attention averaged over heads and layers.",
    ]
    if undefined:
        parts.append(
            f"Undefined in at least one cell: {_count(len(undefined))} "
            f"({_listed(quote(name) for name in undefined)})."
        )
    if table.left_out:
        reasons = (f"{quote(name)}: {reason}" for name, reason in table.left_out.items())
        parts.append(f"Left out: {_count(len(table.left_out))} ({_listed(reasons)}).")
    return " ".join(parts)


def _markdown(table: CorrelationTable) -> str:
    rows = [
        ["layer", *(f"head {head}" for head in range(1, table.n_heads + 1)), AVERAGE],
        ["---", *["---:"] * (table.n_heads + 1)],
        *_cells(table, bold="**{}**"),
    ]
    lines = ["| " + " | ".join(row) + " |\n" for row in rows]
    quoted = caption(table, quote=lambda name: "`" + name.replace("`", "'") + "`")
    return quoted + "\n\n" + "".join(lines)


def _latex(table: CorrelationTable) -> str:
    *layers, average = [
        " & ".join(cell.replace("-", "$-$") for cell in row) + r" \\"
        for row in _cells(table, bold=r"\textbf{{{}}}")
    ]
    header = ["layer", *(f"h{head}" for head in range(1, table.n_heads + 1)), AVERAGE]
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{caption(table, quote=_latex_escape)}}}",
            rf"\label{{tab:correlation-{table.target}}}",
            rf"\begin{{tabular}}{{l{'r' * (table.n_heads + 1)}}}",
            r"\toprule",
            " & ".join(header) + r" \\",
            r"\midrule",
            *layers,
            r"\midrule",
            average,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def _cells(table: CorrelationTable, bold: str) -> list[list[str]]:
    """Return the rows as text, each after its layer, with the highest mean in ``bold``."""
    mean = table.mean
    best = -np.inf if np.isnan(mean).all() else np.nanmax(mean)
    return [
        [layer, *(bold.format(_cell(v)) if v == best else _cell(v) for v in values.tolist())]
        for layer, values in zip(_names(table.n_layers), mean, strict=True)
    ]


def _cell(value: float) -> str:
    return UNDEFINED if np.isnan(value) else f"{value:z.3f}"


def _names(n_layers: int) -> list[str]:
    return [*(str(layer) for layer in range(1, n_layers + 1)), AVERAGE]


def _count(n_utterances: int) -> str:
    return "1 utterance" if n_utterances == 1 else f"{n_utterances} utterances"


def _listed(items: Iterable[str]) -> str:
    """Join the first items, and say how many more there are."""
    everything = list(items)
    more = len(everything) - NAMED_AT_MOST
    return ", ".join(everything[:NAMED_AT_MOST]) + (f" and {more} more" if more > 0 else "")


def _latex_escape(text: str) -> str:
    return "".join(LATEX_SPECIAL.get(sign, sign) for sign in text)
