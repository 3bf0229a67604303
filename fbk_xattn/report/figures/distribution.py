"""Distribution of the correlations of single tokens, which a mean hides."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fbk_xattn.analysis.bootstrap import Bootstrap
from fbk_xattn.analysis.maps import NAMES
from fbk_xattn.analysis.tokens import TokenTable
from fbk_xattn.errors import InputError
from fbk_xattn.report.figures.sheet import Sheet
from fbk_xattn.report.figures.style import (
    LINE_COLOURS,
    LINE_STYLES,
    SMALL,
    WIDTHS,
    drawing,
    lines_height,
)
from fbk_xattn.report.figures.tiles import Frame, Tile, per_row, place
from fbk_xattn.report.tables import describe

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Named = tuple[str, TokenTable]
ALL = "all"
LEAST_WIDTH, HEIGHT = 2.6, 1.7  # inches
LEFT, BELOW = 0.36, 0.32
FILL, DARK = "#9ecae1", "#08306b"
HALF_WIDTH = 0.4  # of a violin or a box, in layers
GRID_POINTS = 200
PAD = 0.04  # of the axis of correlation beyond the values
EXPLAINED = {
    "violin": "Thin bar: 5th to 95th percentile; thick: 25th to 75th; white dot: median; diamond: "
    "mean.",
    "box": "Box: 25th to 75th percentile with the median; whiskers: 5th to 95th; diamond: mean.",
    "ecdf": "Share of the {rows} whose correlation is at most that on the axis.",
}


def draw_distribution(
    tables: Sequence[Named],
    *,
    kind: str = "violin",
    width: float = WIDTHS["page"],
    bootstrap: Bootstrap | None = None,
    header: bool = True,
) -> Figure:
    """Draw how the correlations of tokens are distributed, by layer and for all layers averaged.

    Mean and percentiles are those of ``fbk-xattn correlate --by tokens``. Tables without a defined
    correlation are not drawn.

    Args:
        tables: With the names of their stores (empty if there is no other).
        kind: One of :data:`KINDS`.
        width: Of the figure in inches, see :data:`WIDTHS`.
        bootstrap: Of the summaries.
        header: Whether to write what the numbers are below the titles.

    Returns:
        A figure that pyplot knows nothing of.

    Raises:
        InputError: No table, none with a defined correlation, or no such kind or width.
    """
    if kind not in KINDS:
        raise InputError(f"kind {kind!r}: expected one of {', '.join(KINDS)}")
    if not tables:
        raise InputError("no table to draw, expected at least one")
    undefined = [
        f"{name + ': ' if name else ''}no correlation with {NAMES[table.setting.target]} is "
        f"defined for any of {len(table.tokens)} tokens"
        for name, table in tables
        if not table.is_defined
    ]
    tables = [(name, table) for name, table in tables if table.is_defined]
    if not tables:
        raise InputError(f"{'; '.join(undefined)}; expected maps that vary")
    everything = np.concatenate([table.correlation.ravel() for _, table in tables])
    ends = float(np.nanmin(everything)) - PAD, float(np.nanmax(everything)) + PAD
    rows = "words" if tables[0][1].words else "tokens"
    with drawing(name for name, _ in tables):
        sheet = Sheet(width)
        n_targets = max(sum(name == other for other, _ in tables) for name, _ in tables)
        columns = per_row(n_targets, width, LEAST_WIDTH)
        n_lines = max(table.n_layers for _, table in tables) + 2 if kind == "ecdf" else 0
        frame = Frame(LEFT, BELOW + lines_height(n_lines, SMALL), HEIGHT)
        tiles = [_tile(name, table, kind, rows) for name, table in tables]
        if not header:
            tiles = [replace(tile, notes=()) for tile in tiles]
        placed, end = place(sheet, tiles, columns, frame)
        for axes, (_, table) in zip(placed, tables, strict=True):
            axes.grid(color="0.9", linewidth=0.4)
            axes.set_axisbelow(True)
            KINDS[kind](axes, table, ends, bootstrap or Bootstrap())
        return sheet.finish(end)


def _tile(name: str, table: TokenTable, kind: str, rows: str) -> Tile:
    target = NAMES[table.setting.target].capitalize()
    undefined = int(np.isnan(table.correlation[-1]).sum())
    counted = f"{len(table.tokens)} {rows} of {len(table.ids)} utterances"
    without = f", {undefined} of them undefined" if undefined else ""
    return Tile(
        f"{name}: {target}" if name else target,
        (
            describe(table.setting, [table.cross_attention]),
            f"{counted}{without}. {EXPLAINED[kind].format(rows=rows)}",
        ),
    )


def _rows(table: TokenTable) -> list[tuple[str, NDArray[np.float64]]]:
    """Return name and defined correlations of each layer and of all layers."""
    names = [*map(str, range(1, table.n_layers + 1)), ALL]
    return [
        (name, values[np.isfinite(values)])
        for name, values in zip(names, table.correlation, strict=True)
    ]


def _violins(
    axes: Axes, table: TokenTable, ends: tuple[float, float], bootstrap: Bootstrap
) -> None:
    places = _by_layer(axes, table, ends)
    for row, (x, (_, values)) in enumerate(zip(places, _rows(table), strict=True)):
        if not values.size:
            continue
        grid, density = _density(values)
        half = HALF_WIDTH * density / density.max()
        axes.fill_betweenx(grid, x - half, x + half, color=FILL, linewidth=0)
        summary = table.summary(row, bootstrap=bootstrap)
        low, first, median, third, high = summary.quantiles
        axes.plot([x, x], [low, high], color=DARK, linewidth=0.7)
        axes.plot([x, x], [first, third], color=DARK, linewidth=2.6, solid_capstyle="butt")
        axes.plot(x, median, "o", color="white", markersize=2.2, markeredgewidth=0)
        _mean(axes, x + 0.22, summary.mean)


def _boxes(axes: Axes, table: TokenTable, ends: tuple[float, float], bootstrap: Bootstrap) -> None:
    places = _by_layer(axes, table, ends)
    stats, shown = [], []
    for row, (x, (_, values)) in enumerate(zip(places, _rows(table), strict=True)):
        if not values.size:
            continue
        summary = table.summary(row, bootstrap=bootstrap)
        low, first, median, third, high = summary.quantiles
        stats.append(
            {"whislo": low, "q1": first, "med": median, "q3": third, "whishi": high, "fliers": []}
        )
        shown.append(x)
        _mean(axes, x, summary.mean)
    line = {"color": DARK, "linewidth": 0.8}
    axes.bxp(
        stats,
        positions=shown,
        widths=HALF_WIDTH,
        showfliers=False,
        patch_artist=True,
        boxprops={"facecolor": FILL, "edgecolor": DARK, "linewidth": 0.8},
        medianprops={**line, "linewidth": 1.4},
        whiskerprops=line,
        capprops=line,
        manage_ticks=False,
    )


def _steps(axes: Axes, table: TokenTable, ends: tuple[float, float], _: Bootstrap) -> None:
    for number, (name, values) in enumerate(_rows(table)):
        whole = name == ALL
        axes.ecdf(
            values,
            label="all layers" if whole else f"layer {name}",
            color="black" if whole else LINE_COLOURS[number % (len(LINE_COLOURS) - 1)],
            linestyle="-" if whole else LINE_STYLES[number % len(LINE_STYLES)],
            linewidth=1.6 if whole else 0.9,
        )
    axes.set_xlim(*ends)
    axes.set_ylim(0, 1)
    axes.set_xlabel("correlation")
    axes.set_ylabel("share")
    axes.legend(
        loc="upper left",
        bbox_to_anchor=(0, -BELOW / HEIGHT),
        borderaxespad=0,
        borderpad=0,
        labelspacing=0.2,
    )


# How the tokens of a table are drawn on axes, by the name of the kind.
KINDS: Mapping[str, Callable[[Axes, TokenTable, tuple[float, float], Bootstrap], None]] = {
    "violin": _violins,
    "box": _boxes,
    "ecdf": _steps,
}


def _by_layer(axes: Axes, table: TokenTable, ends: tuple[float, float]) -> list[float]:
    """Set up axes with a place for each layer, and return the places; that of all is apart."""
    places = [*map(float, range(1, table.n_layers + 1)), table.n_layers + 1.4]
    axes.set_xticks(places, [name for name, _ in _rows(table)])
    axes.set_xlim(0.4, places[-1] + 0.6)
    axes.axvline(table.n_layers + 0.7, color="0.7", linewidth=0.5)
    axes.axhline(0, color="0.6", linewidth=0.5)
    axes.grid(visible=False, axis="x")
    axes.set_ylim(*ends)
    axes.set_xlabel("layer (heads averaged)")
    axes.set_ylabel("correlation")
    return places


def _mean(axes: Axes, x: float, value: float) -> None:
    axes.plot(x, value, "D", color="#D55E00", markersize=2.4, markeredgewidth=0, zorder=5)


def _density(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return a grid between the least and the greatest value, and the estimated density there."""
    from scipy.stats import gaussian_kde

    low, high = float(values.min()), float(values.max())
    if high - low < 1e-9:  # one value, whose density is no function
        return np.array([low - 0.005, low + 0.005]), np.ones(2)
    grid = np.linspace(low, high, GRID_POINTS)
    return grid, gaussian_kde(values)(grid)
