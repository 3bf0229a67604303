"""What tests look for in figures."""

from __future__ import annotations

from itertools import combinations

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from fbk_xattn.report.figures.output import DOTS_PER_INCH


def texts_of(figure):
    """Return all texts that a figure shows, in no order."""
    beyond = {
        label
        for axes in figure.findobj(Axes)  # colour bars are axes within axes
        for axis in (axes.xaxis, axes.yaxis)
        for label in _beyond(axis)
    }
    return [
        text
        for text in figure.findobj(Text)
        if text.get_visible() and text.get_text() and text not in beyond
    ]


def _beyond(axis):
    """Return the numbers of an axis that are not drawn, as they lie beyond its ends."""
    low, high = sorted(axis.get_view_interval())
    slack = 1e-9 * (high - low)
    return [
        label
        for place, label in zip(axis.get_ticklocs(), axis.get_ticklabels(), strict=False)
        if not low - slack <= place <= high + slack
    ]


def written(figure):
    return " ".join(text.get_text() for text in figure.texts)


def assert_tidy(figure):
    """Check that no text sticks out of the figure or overlaps another."""
    figure.set_dpi(DOTS_PER_INCH)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    whole = figure.bbox
    boxes = []
    for text in texts_of(figure):
        box = text.get_window_extent(renderer)
        if box.width and box.height:
            assert box.x0 >= whole.x0 - 1, text
            assert box.x1 <= whole.x1 + 1, text
            assert box.y0 >= whole.y0 - 1, text
            assert box.y1 <= whole.y1 + 1, text
            boxes.append((text.get_text(), box))
    for (one, a), (other, b) in combinations(boxes, 2):
        across = min(a.x1, b.x1) - max(a.x0, b.x0)
        along = min(a.y1, b.y1) - max(a.y0, b.y0)
        # Lines of text touch where one has a g and the next an h.
        assert across < 1 or along < 0.35 * min(a.height, b.height), (one, other)
