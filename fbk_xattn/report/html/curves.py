"""Curves of deletion and insertion as SVG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fbk_xattn.analysis.deletion import ScoredCurve
from fbk_xattn.store.curves import DELETION

WIDTH, HEIGHT = 420, 250
LEFT, RIGHT, TOP, BOTTOM = 44, 12, 12, 38
N_TICKS = 5


@dataclass(frozen=True)
class Line:
    """One curve as it is drawn.

    Attributes:
        name: The map that ranked the units, with its folder where two have the same map.
        auc: Area under it.
        points: Of an SVG polyline.
    """

    name: str
    auc: float
    points: str


@dataclass(frozen=True)
class Chart:
    """Curves of one score on one set of axes.

    Attributes:
        title: Of which languages.
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


def charts_of(curves: Sequence[tuple[str, ScoredCurve]]) -> list[Chart]:
    """Draw curves, those of one mode, score and language pair on the same axes.

    Args:
        curves: With the name of their folder.
    """
    groups: dict[tuple[str, str, str], list[tuple[str, ScoredCurve]]] = {}
    for name, curve in curves:
        languages = "-".join(dict.fromkeys(curve.languages or ("all",)))
        groups.setdefault((curve.mode, languages, curve.score), []).append((name, curve))
    return [_chart(*key, group) for key, group in groups.items()]


def _chart(
    mode: str, languages: str, score: str, curves: Sequence[tuple[str, ScoredCurve]]
) -> Chart:
    highest = _rounded_up(max(float(curve.scores.max()) for _, curve in curves))
    maps = [curve.map_name for _, curve in curves]

    def x(percentage: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * percentage / 100

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * value / highest

    lines = tuple(
        Line(
            curve.map_name if maps.count(curve.map_name) == 1 else f"{curve.map_name} ({name})",
            curve.auc,
            " ".join(
                f"{x(percentage):.1f},{y(value):.1f}"
                for percentage, value in zip(
                    curve.percentages.tolist(), curve.scores.tolist(), strict=True
                )
            ),
        )
        for name, curve in curves
    )
    kind = "removed" if mode == DELETION else "kept"
    shares = [100 * number / N_TICKS for number in range(N_TICKS + 1)]
    return Chart(
        title=f"{mode.capitalize()}, {languages}",
        x_label=f"percent of the units {kind}, most salient first",
        y_label=score,
        x_ticks=tuple((round(x(share), 1), f"{share:g}") for share in shares),
        y_ticks=tuple(
            (round(y(highest * share / 100), 1), f"{highest * share / 100:g}") for share in shares
        ),
        lines=lines,
        better=curves[0][1].metric.better,
    )


def _rounded_up(value: float) -> float:
    """Return the end of an axis: the next multiple of 5 from 5 on."""
    return max(5.0, 5.0 * -(-value // 5))
