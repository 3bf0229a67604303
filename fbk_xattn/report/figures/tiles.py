"""Panels of one size in rows, with titles above them, for figures that are no maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fbk_xattn.report.figures.fonts import printable
from fbk_xattn.report.figures.sheet import Sheet
from fbk_xattn.report.figures.style import BODY, FAINT, MARGIN, SMALL, lines_height
from fbk_xattn.report.figures.text import wrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GAP, BETWEEN = 0.14, 0.12  # inches: between panels of a row, between rows
TITLE_GAP = 0.04


@dataclass(frozen=True)
class Tile:
    """What is written above a panel."""

    title: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Frame:
    """Room around every panel in inches: for the numbers of its axes and for what is below."""

    left: float
    below: float
    height: float
    right: float = 0.0


def per_row(n: int, width: float, least: float) -> int:
    """Return how many of ``n`` panels stand side by side, each at least ``least`` inches wide."""
    return max(1, min(n, int((width - 2 * MARGIN + GAP) / (least + GAP))))


def inner_width(width: float, n_per_row: int, frame: Frame) -> float:
    """Return how wide a panel is within its axes."""
    return (width - 2 * MARGIN - (n_per_row - 1) * GAP) / n_per_row - frame.left - frame.right


def place(
    sheet: Sheet, tiles: Sequence[Tile], n_per_row: int, frame: Frame, top: float = MARGIN
) -> tuple[list[Axes], float]:
    """Write titles and add axes, row by row.

    Returns:
        The axes of each tile, and where they end in inches from the upper edge.
    """
    inner = inner_width(sheet.width, n_per_row, frame)
    placed = []
    for start in range(0, len(tiles), n_per_row):
        row = tiles[start : start + n_per_row]
        room = inner + frame.left + frame.right
        titles = [wrapped(printable(tile.title), room, BODY, bold=True) for tile in row]
        notes = [
            [line for note in tile.notes for line in wrapped(printable(note), room, SMALL)]
            for tile in row
        ]
        title_height = lines_height(max(map(len, titles)), BODY)
        above = title_height + lines_height(max(map(len, notes)), SMALL) + TITLE_GAP
        top += BETWEEN * (start > 0)
        for number, (title, lines) in enumerate(zip(titles, notes, strict=True)):
            left = MARGIN + number * (room + GAP)
            sheet.text(left, top, title, weight="bold")
            sheet.text(left, top + title_height, lines, size=SMALL, color=FAINT)
            placed.append(sheet.axes(left + frame.left, top + above, inner, frame.height))
        top += above + frame.height + frame.below
    return placed, top + MARGIN
