"""Curves of deletion and insertion, with the area below each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING

from fbk_xattn.analysis.deletion import ScoredCurve
from fbk_xattn.analysis.table import task_name
from fbk_xattn.errors import InputError
from fbk_xattn.report.figures.fonts import printable
from fbk_xattn.report.figures.sheet import Sheet
from fbk_xattn.report.figures.style import (
    LINE_COLOURS,
    LINE_STYLES,
    SMALL,
    WIDTHS,
    drawing,
    lines_height,
)
from fbk_xattn.report.figures.text import shortened
from fbk_xattn.report.figures.tiles import Frame, Tile, inner_width, per_row, place
from fbk_xattn.store.curves import INSERTION

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SCORES = {"wer": "WER (%)", "wer_max": "WER, cut at 100 (%)", "bleu": "BLEU"}
LEAST_WIDTH, HEIGHT = 2.0, 1.5  # inches
LEFT, RIGHT, BELOW = 0.34, 0.1, 0.32
HANDLE = 0.45  # of a line of the legend
Named = tuple[str, ScoredCurve]


def draw_curves(curves: Sequence[Named], *, width: float = WIDTHS["column"]) -> Figure:
    """Draw scores over the share that is removed (deletion) or kept (insertion).

    One panel for each score, task and mode, with a line a map; the legend below gives the area
    under each curve as ``fbk-xattn evaluate`` prints it.

    Args:
        curves: With the names of their folders, as :func:`~fbk_xattn.analysis.deletion.evaluate`
            returns them.
        width: Of the figure in inches, see :data:`WIDTHS`.

    Returns:
        A figure that pyplot knows nothing of.

    Raises:
        InputError: No curve, or no such width.
    """
    if not curves:
        raise InputError("no curve to draw, expected at least one")
    panels: dict[tuple[str, tuple[str, str] | None, str], list[Named]] = {}
    for name, curve in curves:
        panels.setdefault((curve.mode, curve.languages, curve.score), []).append((name, curve))
    # A map has one look in all panels.
    looks: dict[str, int] = {}
    named = {key: _line_names(members) for key, members in panels.items()}
    for names in named.values():
        for name in names:
            looks.setdefault(name, len(looks))
    most = max(len(members) for members in panels.values())
    with drawing(name for names in named.values() for name in names):
        sheet = Sheet(width)
        frame = Frame(LEFT, BELOW + lines_height(most + 1, SMALL) + 0.04, HEIGHT, RIGHT)
        columns = per_row(len(panels), width, LEAST_WIDTH)
        tiles = [Tile(_title(mode, languages)) for mode, languages, _ in panels]
        axes, end = place(sheet, tiles, columns, frame)
        inner = inner_width(width, columns, frame)
        for one, (key, members) in zip(axes, panels.items(), strict=True):
            _draw(one, members, named[key], looks, inner)
        return sheet.finish(end)


def _title(mode: str, languages: tuple[str, str] | None) -> str:
    task = "all tasks" if languages is None else task_name(*languages)
    return f"{mode.capitalize()}, {task}"


def _line_names(members: Sequence[Named]) -> list[str]:
    """Name lines by their maps, and by their folders where maps do not tell them apart."""
    maps = [curve.map_name for _, curve in members]
    folders = [PurePath(name).name for name, _ in members]
    if len(set(zip(maps, folders, strict=True))) < len(members):
        folders = [name for name, _ in members]
    return [
        printable(name if maps.count(name) == 1 else f"{name} ({folder})")
        for name, folder in zip(maps, folders, strict=True)
    ]


def _draw(
    axes: Axes, members: Sequence[Named], names: Sequence[str], looks: dict[str, int], inner: float
) -> None:
    """Draw the lines of a panel and, below it, their legend."""
    lines, texts = [], []
    for name, (_, curve) in zip(names, members, strict=True):
        look = looks[name]
        (line,) = axes.plot(
            curve.percentages,
            curve.scores,
            color=LINE_COLOURS[look % len(LINE_COLOURS)],
            linestyle=LINE_STYLES[look % len(LINE_STYLES)],
            marker="o",
            markersize=1.8,
            clip_on=False,
        )
        lines.append(line)
        texts.append(f"{shortened(name, inner - HANDLE - 0.4, SMALL)}: {curve.auc:.2f}")
    curve = members[0][1]
    metric = curve.metric
    highest = max(float(other.scores.max()) for _, other in members)
    top = metric.high if curve.score == "wer_max" else min(metric.high, 1.08 * highest)
    axes.set_ylim(metric.low, max(top, 1.0))
    axes.set_xlim(0, 100)
    axes.set_xticks(range(0, 101, 20))
    axes.set_xlabel("kept (%)" if curve.mode == INSERTION else "removed (%)")
    axes.set_ylabel(SCORES.get(curve.score, curve.score))
    axes.grid(color="0.9", linewidth=0.4)
    axes.set_axisbelow(True)
    axes.legend(
        lines,
        texts,
        title=f"AUC ({metric.better} is better)",
        title_fontsize=SMALL,
        alignment="left",
        loc="upper left",
        bbox_to_anchor=(0, -BELOW / HEIGHT),
        borderaxespad=0,
        borderpad=0,
        labelspacing=0.2,
        handlelength=2.6,
    )
