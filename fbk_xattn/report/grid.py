"""A table ready to be printed, and the formats it is printed in."""

from __future__ import annotations

import csv
import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from fbk_xattn.errors import InputError

Quote = Callable[[str], str]

LATEX_SPECIAL = {
    "\\": r"\textbackslash{}",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    # In LaTeX's default encoding these print as a dash and Spanish signs.
    "|": r"\textbar{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
}


@dataclass(frozen=True)
class Grid:
    """A table of texts, with the numbers behind them.

    Attributes:
        caption: Says what the numbers are; called with how the format quotes names of utterances
            and stores.
        label: For references in LaTeX (``tab:LABEL``).
        header: Names of the columns.
        rows: Cells of each row, the first of which is its name.
        best: ``(row, column)`` of the cells to print in bold (terminal: with a star).
        rules: Rows with a line above (where the format has lines).
        short_header: The header where columns must be narrow (LaTeX); ``header`` by default.
        records: What CSV has instead of the cells: rows of values in full precision by column.
    """

    caption: Callable[[Quote], str]
    label: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    best: frozenset[tuple[int, int]] = frozenset()
    rules: frozenset[int] = frozenset()
    short_header: tuple[str, ...] = ()
    records: tuple[Mapping[str, object], ...] = ()


def render_grids(grids: Sequence[Grid], form: str) -> str:
    """Render tables one after the other; in CSV they are one table.

    Args:
        grids: The tables.
        form: Name in :data:`FORMATS`.

    Raises:
        InputError: ``form`` is not the name of a format.

    Example:
        >>> grid = Grid(lambda quote: "A table.", "a", ("layer", "r"), (("1", "0.5"),))
        >>> print(render_grids([grid], "markdown"), end="")
        A table.
        <BLANKLINE>
        | layer | r |
        | --- | ---: |
        | 1 | 0.5 |
    """
    if form not in FORMATS:
        raise InputError(f"format {form!r}: expected one of {', '.join(FORMATS)}")
    return FORMATS[form](grids)


def to_terminal(grids: Sequence[Grid]) -> str:
    """Render as plain text with aligned columns, the best cells with a star."""
    return "\n".join(_terminal(grid) for grid in grids)


def to_markdown(grids: Sequence[Grid]) -> str:
    """Render in Markdown, the best cells in bold."""
    return "\n".join(_markdown(grid) for grid in grids)


def to_latex(grids: Sequence[Grid]) -> str:
    """Render as LaTeX ``table`` environments for booktabs, the best cells in bold."""
    return "% needs \\usepackage{booktabs}\n" + "\n".join(
        _latex(grid, label) for grid, label in zip(grids, _labels(grids), strict=True)
    )


def to_csv(grids: Sequence[Grid]) -> str:
    """Render the records of all tables as one CSV; what a table does not have stays empty."""
    records = [record for grid in grids for record in grid.records]
    return records_to_csv(records)


def records_to_csv(records: Sequence[Mapping[str, object]]) -> str:
    """Return rows of values as CSV, numbers in full precision, columns in order of appearance."""
    columns = list(dict.fromkeys(name for record in records for name in record))
    lines = _Lines()
    writer = csv.DictWriter(lines, columns, lineterminator=_Lines.END)
    writer.writeheader()
    writer.writerows(records)
    return "".join(lines)


class _Lines(list[str]):
    """The rows of a CSV that ends them with line feeds.

    Its writer quotes what has a sign of its own end of line, so that must have a carriage return.
    """

    END = "\r\n"

    def write(self, row: str) -> None:
        self.append(row.removesuffix(self.END) + "\n")


FORMATS: Mapping[str, Callable[[Sequence[Grid]], str]] = {
    "markdown": to_markdown,
    "csv": to_csv,
    "latex": to_latex,
    "terminal": to_terminal,
}


def latex_escape(text: str) -> str:
    """Return the LaTeX that prints ``text``."""
    return "".join(LATEX_SPECIAL.get(sign, sign) for sign in text)


def _terminal(grid: Grid) -> str:
    body = [
        [cell + ("*" if (r, c) in grid.best else " ") * (c > 0) for c, cell in enumerate(row)]
        for r, row in enumerate(grid.rows)
    ]
    header = [name + " " * (c > 0) for c, name in enumerate(grid.header)]
    widths = [max(map(len, column)) for column in zip(header, *body, strict=True)]

    def line(cells: Sequence[str]) -> str:
        first, *others = (
            cell.rjust(width) if c else cell.ljust(width)
            for c, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return "  ".join([first, *others]).rstrip() + "\n"

    rule = "-" * (sum(widths) + 2 * len(widths) - 2) + "\n"
    lines = [line(header), rule]
    for r, row in enumerate(body):
        lines += [rule] * (r in grid.rules) + [line(row)]
    return grid.caption(repr) + "\n\n" + "".join(lines)


def _markdown(grid: Grid) -> str:
    cells = [
        [f"**{cell}**" if (r, c) in grid.best else cell for c, cell in enumerate(row)]
        for r, row in enumerate(grid.rows)
    ]
    rows = [grid.header, ["---", *["---:"] * (len(grid.header) - 1)], *cells]
    lines = ["| " + " | ".join(cell.replace("|", r"\|") for cell in row) + " |\n" for row in rows]
    caption = grid.caption(lambda name: "`" + name.replace("`", "'") + "`")
    return caption + "\n\n" + "".join(lines)


def _labels(grids: Sequence[Grid]) -> list[str]:
    """Return the labels in the letters that LaTeX takes, numbered where two would be the same."""
    labels: list[str] = []
    for grid in grids:
        plain = re.sub(r"[^A-Za-z0-9]+", "-", grid.label)
        numbered = (f"{plain}-{number}" for number in itertools.count(2))
        labels.append(next(n for n in itertools.chain([plain], numbered) if n not in labels))
    return labels


def _row(line: str) -> str:
    r"""Keep LaTeX from reading the begin of a row as an option of the command before it."""
    return "{}" + line if line.startswith(("[", "*")) else line


def _latex(grid: Grid, label: str) -> str:
    lines = []
    for r, (name, *values) in enumerate(grid.rows):
        texts = [re.sub(r"-(?=\d)", "$-$", latex_escape(value)) for value in values]
        marked = [
            rf"\textbf{{{text}}}" if (r, c) in grid.best else text
            for c, text in enumerate(texts, 1)
        ]
        lines += [r"\midrule"] * (r in grid.rules)
        lines.append(_row(" & ".join([latex_escape(name), *marked])) + r" \\")
    header = " & ".join(map(latex_escape, grid.short_header or grid.header))
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{grid.caption(latex_escape)}}}",
            rf"\label{{tab:{label}}}",
            rf"\begin{{tabular}}{{l{'r' * (len(grid.header) - 1)}}}",
            r"\toprule",
            _row(header) + r" \\",
            r"\midrule",
            *lines,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )
