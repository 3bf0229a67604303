"""Curves of deletion and insertion as SVG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fbk_xattn.report.curve_panels import CurvePanel, Named, curve_panels

WIDTH, HEIGHT = 420, 250
LEFT, RIGHT, TOP, BOTTOM = 44, 12, 12, 38
STEPS = (1, 2, 5, 10, 20, 25, 50, 100)  # from one tick to the next
MOST_STEPS = 5
N_LOOKS = 6  # .c0 to .c5 of report.css


@dataclass(frozen=True)
class Line:
    """One curve as it is drawn.

    Attributes:
        name: The map that ranked the units, with its folder where maps do not tell curves apart.
        unit: What the map ranks.
        look: Number of its class in the style sheet.
        auc: Area under it.
        points: Of an SVG polyline.
    """

    name: str
    unit: str
    look: int
    auc: float
    points: str


@dataclass(frozen=True)
class Chart:
    """Curves of one score on one set of axes.

    Attributes:
        title: Mode and task.
        x_label: What is on the horizontal axis.
        y_label: The score.
        x_ticks: Position and text of each.
        y_ticks: Position and text of each.
        lines: The curves.
        better: Whether a lower or a higher area is better.
    """

    title: str
    x_label: str
    y_label: str
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    lines: tuple[Line, ...]
    better: str
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    top: int = TOP
    bottom: int = HEIGHT - BOTTOM


def charts_of(curves: Sequence[Named]) -> list[Chart]:
    """Draw curves, those of one mode, task and score on the same axes.

    Args:
        curves: With the name of their folder; none gives no chart.
    """
    return [_chart(panel) for panel in curve_panels(curves)] if curves else []


def _chart(panel: CurvePanel) -> Chart:
    y_values = _ticks(max(float(line.curve.scores.max()) for line in panel.lines))

    def x(percentage: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * percentage / 100

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * value / y_values[-1]

    return Chart(
        title=panel.title,
        x_label=f"{panel.x_label}, most salient first",
        y_label=panel.y_label,
        x_ticks=tuple((round(x(share), 1), f"{share}") for share in range(0, 101, 20)),
        y_ticks=tuple((round(y(value), 1), f"{value}") for value in y_values),
        lines=tuple(
            Line(
                name=line.name,
                unit=line.curve.unit,
                look=line.look % N_LOOKS,
                auc=line.curve.auc,
                points=" ".join(
                    f"{x(percentage):.1f},{y(value):.1f}"
                    for percentage, value in zip(
                        line.curve.percentages.tolist(), line.curve.scores.tolist(), strict=True
                    )
                ),
            )
            for line in panel.lines
        ),
        better=panel.first.metric.better,
    )


def _ticks(highest: float) -> range:
    """Return round numbers from 0 to the end of an axis that holds ``highest``."""
    step = next((s for s in STEPS if s * MOST_STEPS >= highest), STEPS[-1])
    while step * MOST_STEPS < highest:  # a WER that is not cut has no limit
        step *= 2
    n_steps = max(1, -(-highest // step))
    return range(0, int(n_steps) * step + 1, step)
