"""Correlation by layer and head as a heat map (paper, Table 1)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fbk_xattn.analysis.bootstrap import Bootstrap
from fbk_xattn.analysis.maps import NAMES
from fbk_xattn.analysis.table import CorrelationTable
from fbk_xattn.errors import InputError
from fbk_xattn.report.figures.axes import colour_bar
from fbk_xattn.report.figures.sheet import Sheet
from fbk_xattn.report.figures.style import (
    MAP_COLOURS,
    NOTHING,
    SMALL,
    WIDTHS,
    drawing,
)
from fbk_xattn.report.figures.text import text_width
from fbk_xattn.report.figures.tiles import Frame, Tile, inner_width, per_row, place
from fbk_xattn.report.tables import AVERAGE, cell_text, describe, describe_interval, with_interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Named = tuple[str, CorrelationTable]
APART = 0.25  # between heads and their average, as a share of a cell
CELL = 0.17  # height in inches
LEFT, RIGHT, BELOW = 0.32, 0.1, 0.52
BAR, BAR_TOP = 0.06, 0.3  # height of the colour bar, and how far it is below the panel
LIGHT = 0.62  # share of the colours from which numbers on them are black


def draw_heads(
    tables: Sequence[Named],
    *,
    width: float = WIDTHS["page"],
    same_scale: bool = False,
    bootstrap: Bootstrap | None = None,
    header: bool = True,
) -> Figure:
    """Draw correlation tables as heat maps, layers by heads, with the averages set apart.

    The cells hold the numbers of ``fbk-xattn correlate``, the highest in bold; where they have no
    room the colours stand alone. Panels are side by side as far as their numbers have room.

    Args:
        tables: With the names of their stores (empty if there is no other).
        width: Of the figure in inches, see :data:`WIDTHS`.
        same_scale: Whether all panels have the same colours for the same values.
        bootstrap: For the interval of the mean, which stands above the panel.
        header: Whether to write what the numbers are below the titles.

    Returns:
        A figure that pyplot knows nothing of.

    Raises:
        InputError: No table, or no such width.
    """
    if not tables:
        raise InputError("no table to draw, expected at least one")
    means = [table.mean for _, table in tables]
    limits = [_limits(mean) for mean in means]
    if same_scale:
        limits = [(min(low for low, _ in limits), max(high for _, high in limits))] * len(limits)
    with drawing(name for name, _ in tables):
        sheet = Sheet(width)
        n_cells = max(table.n_heads for _, table in tables) + 1 + APART
        number = max(text_width(_shown(value), SMALL) for mean in means for value in mean.ravel())
        columns = per_row(_side_by_side(tables), width, n_cells * number + LEFT + RIGHT)
        height = (max(table.n_layers for _, table in tables) + 1 + APART) * CELL
        frame = Frame(LEFT, BELOW, height, RIGHT)
        tiles = [_tile(name, table, bootstrap or Bootstrap()) for name, table in tables]
        if not header:
            tiles = [replace(tile, notes=()) for tile in tiles]
        placed, end = place(sheet, tiles, columns, frame)
        inner = inner_width(width, columns, frame)
        has_room = inner / n_cells >= number
        for axes, mean, ends in zip(placed, means, limits, strict=True):
            _draw(axes, mean, ends, inner, numbers=has_room)
            bar = axes.inset_axes(
                (0, -(BAR_TOP + BAR) / height, 1, BAR / height), transform=axes.transAxes
            )
            colour_bar(bar, axes.collections[0], "neither")
        return sheet.finish(end)


def _shown(value: float) -> str:
    """Return the number of a cell as the table has it, with the sign of print."""
    return cell_text(float(value)).replace("-", "\N{MINUS SIGN}")


def _side_by_side(tables: Sequence[Named]) -> int:
    """Return how many panels a row has at most: the targets of a store."""
    return max(sum(name == other for other, _ in tables) for name, _ in tables)


def _tile(name: str, table: CorrelationTable, bootstrap: Bootstrap) -> Tile:
    target = NAMES[table.target].capitalize()
    low, high = table.interval(bootstrap)[:, -1, -1]
    overall = with_interval(table.mean[-1, -1], low, high)
    kind = "" if np.isnan(low) else f", {describe_interval(bootstrap)}"
    return Tile(
        f"{name}: {target}" if name else target,
        (describe(table), f"All layers and heads: {overall}{kind}."),
    )


def _limits(mean: NDArray[np.float64]) -> tuple[float, float]:
    finite = mean[np.isfinite(mean)]
    if not finite.size:
        return 0.0, 1.0
    low, high = float(finite.min()), float(finite.max())
    return (low, high) if low < high else (low - 0.5, high + 0.5)


def _edges(n: int) -> NDArray[np.float64]:
    """Return where ``n`` cells begin and end, and after a gap the cell of their average."""
    return np.array([*range(n + 1), n + APART, n + 1 + APART])


def _head_labels(n_heads: int, cell: float) -> list[str]:
    """Return the labels of columns ``cell`` inches wide, empty where they have no room."""
    room = text_width(f"{n_heads} ", SMALL)
    every = max(1, math.ceil(room / cell))
    last = n_heads - text_width(AVERAGE, SMALL) / cell  # those after it would touch the average
    shown = {head for head in range(1, n_heads + 1, every) if every == 1 or head < last}
    return [*(str(head) if head in shown else "" for head in range(1, n_heads + 1)), AVERAGE]


def _draw(
    axes: Axes,
    mean: NDArray[np.float64],
    limits: tuple[float, float],
    inner: float,
    *,
    numbers: bool,
) -> None:
    """Draw one table ``(L + 1, H + 1)`` on axes ``inner`` inches wide."""
    n_layers, n_heads = mean.shape[0] - 1, mean.shape[1] - 1
    low, high = limits
    # The gaps are cells without a value.
    cells = np.insert(np.insert(mean, n_layers, np.nan, axis=0), n_heads, np.nan, axis=1)
    axes.pcolormesh(
        _edges(n_heads),
        _edges(n_layers),
        np.ma.masked_invalid(cells),
        cmap=MAP_COLOURS,
        vmin=low,
        vmax=high,
        edgecolors="white",
        linewidth=0.5,
    )
    axes.set_xlim(0, n_heads + 1 + APART)
    axes.set_ylim(n_layers + 1 + APART, 0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.tick_params(length=0)
    x = [*(head + 0.5 for head in range(n_heads)), n_heads + APART + 0.5]
    y = [*(layer + 0.5 for layer in range(n_layers)), n_layers + APART + 0.5]
    axes.set_xticks(x, _head_labels(n_heads, inner / (n_heads + 1 + APART)))
    axes.set_yticks(y, [*map(str, range(1, n_layers + 1)), AVERAGE])
    axes.set_xlabel("head")
    axes.set_ylabel("layer")
    best = np.nanmax(mean) if np.isfinite(mean).any() else np.inf
    for (layer, head), value in np.ndenumerate(mean):
        if np.isnan(value):
            axes.fill_between(
                [x[head] - 0.5, x[head] + 0.5], y[layer] - 0.5, y[layer] + 0.5, color=NOTHING
            )
        if numbers:
            share = 1.0 if np.isnan(value) else (value - low) / (high - low)
            axes.text(
                x[head],
                y[layer],
                _shown(value),
                size=SMALL,
                ha="center",
                va="center_baseline",
                color="black" if share > LIGHT else "white",
                weight="bold" if value == best else "normal",
            )
