"""Axes that several figures have: time in seconds, and colour bars."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fbk_xattn.report.figures.style import FRAME, SMALL

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable

COLOUR_BAR = "colour bar"  # label of its axes, for those who look for them in a figure
TICK = 0.36  # inches that a number under the time axis takes
ENDS = 0.03  # length of the points of a colour bar, as a share of it


def mark_time(axes: Axes, seconds: float, width: float) -> None:
    """Set up a time axis.

    Args:
        axes: To set up.
        seconds: End of the axis.
        width: Of the axes in inches: there are no more numbers than it has room for.
    """
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axes.set_xlim(0, seconds)
    axes.xaxis.set_major_locator(MaxNLocator(max(int(width / TICK), 1), steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def colour_bar(bar: Axes, image: ScalarMappable, extend: str, label: str = "") -> None:
    """Draw a horizontal colour bar.

    Args:
        bar: The axes that it fills.
        image: Of the colours.
        extend: Ends that are pointed, as values lie beyond: ``neither``, ``min``, ``max`` or
            ``both``.
        label: What it is of.
    """
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    figure = bar.get_figure(root=True)
    if figure is None:
        raise ValueError("axes of no figure")
    drawn = figure.colorbar(
        image, cax=bar, orientation="horizontal", extend=extend, extendfrac=ENDS
    )
    drawn.outline.set_edgecolor(FRAME)
    drawn.outline.set_linewidth(0.5)
    bar.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    bar.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _plain(value)))
    bar.tick_params(labelsize=SMALL, length=1.5, pad=1)
    bar.set_label(COLOUR_BAR)
    if label:
        bar.text(
            -2 * ENDS, 0.5, label, size=SMALL, ha="right", va="center", transform=bar.transAxes
        )


def _plain(value: float) -> str:
    """Return a number with the minus sign that is as wide as a plus."""
    return f"{value:z.4g}".replace("-", "\N{MINUS SIGN}")
