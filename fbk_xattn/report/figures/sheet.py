"""A figure that is laid out in inches from its upper left corner, its height found at the end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fbk_xattn.report.figures.style import BODY, LINE, check_width

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Text


class Sheet:
    """What is placed on a figure; pyplot knows nothing of it."""

    def __init__(self, width: float) -> None:
        """Begin a figure.

        Args:
            width: In inches.

        Raises:
            InputError: A width that figures cannot have.
        """
        from matplotlib.figure import Figure

        self.width = check_width(width)
        self.figure: Figure = Figure(figsize=(width, 1.0))
        self._axes: list[tuple[Axes, tuple[float, float, float, float]]] = []
        self._texts: list[tuple[Text, float, float]] = []

    def axes(self, left: float, top: float, width: float, height: float) -> Axes:
        """Add axes; all in inches, ``top`` from the upper edge."""
        axes = self.figure.add_axes((0.0, 0.0, 1.0, 1.0))
        self._axes.append((axes, (left, top, width, height)))
        return axes

    def text(self, left: float, top: float, lines: list[str], **style: Any) -> float:
        """Write lines below ``top``.

        Returns:
            Where they end, in inches from the upper edge.
        """
        size = style.pop("size", BODY)
        for line in lines:
            text = self.figure.text(0, 0, line, size=size, va="top", **style)
            self._texts.append((text, left, top))
            top += size * LINE / 72
        return top

    def finish(self, height: float) -> Figure:
        """Return the figure, ``height`` inches high."""
        self.figure.set_size_inches(self.width, height)
        for axes, (left, top, width, inches) in self._axes:
            bottom = height - top - inches
            axes.set_position(
                (left / self.width, bottom / height, width / self.width, inches / height)
            )
        for text, left, top in self._texts:
            text.set_position((left / self.width, 1 - top / height))
        return self.figure
