"""Curves of deletion and insertion, with the area below each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from fbk_xattn.report.curve_panels import CurvePanel, Named, curve_panels
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

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LEAST_WIDTH, HEIGHT = 2.0, 1.5  # inches
LEFT, RIGHT, BELOW = 0.34, 0.1, 0.32
HANDLE = 0.45  # of a line of the legend


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
    panels = curve_panels(curves)
    most = max(len(panel.lines) for panel in panels)
    with drawing(printable(line.name) for panel in panels for line in panel.lines):
        sheet = Sheet(width)
        frame = Frame(LEFT, BELOW + lines_height(most + 1, SMALL) + 0.04, HEIGHT, RIGHT)
        columns = per_row(len(panels), width, LEAST_WIDTH)
        axes, end = place(sheet, [Tile(panel.title) for panel in panels], columns, frame)
        inner = inner_width(width, columns, frame)
        for one, panel in zip(axes, panels, strict=True):
            _draw(one, panel, inner)
        return sheet.finish(end)


def _draw(axes: Axes, panel: CurvePanel, inner: float) -> None:
    """Draw the lines of a panel and, below it, their legend."""
    lines, texts = [], []
    for member in panel.lines:
        curve, look = member.curve, member.look
        name = printable(member.name)
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
    metric = panel.first.metric
    highest = max(float(other.curve.scores.max()) for other in panel.lines)
    top = metric.high if panel.first.score == "wer_max" else min(metric.high, 1.08 * highest)
    axes.set_ylim(metric.low, max(top, 1.0))
    axes.set_xlim(0, 100)
    axes.set_xticks(range(0, 101, 20))
    axes.set_xlabel(panel.x_label)
    axes.set_ylabel(panel.y_label)
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
