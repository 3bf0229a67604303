"""What a number of the analysis means, as data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Metric:
    """A number: what is better, between which bounds it lies, and where it is defined.

    Attributes:
        name: As tables and files have it.
        better: Which direction is better.
        low: Least possible value.
        high: Greatest possible value.
        source: Paper that defines it.
        unit: Of the values.
    """

    name: str
    better: Literal["lower", "higher"]
    low: float
    high: float
    source: str
    unit: str = ""

    @property
    def arrow(self) -> str:
        """``↓`` or ``↑``, for the heads of tables."""
        return "↓" if self.better == "lower" else "↑"


def area(x: NDArray[np.number[Any]], y: NDArray[np.floating[Any]]) -> float:
    """Return the mean height of a curve: the area under it by the trapezoidal rule, over its width.

    Args:
        x: ``(P,)``, increasing.
        y: ``(P,)``.

    Returns:
        In the unit of ``y``.

    Example:
        >>> area(np.array([0, 50, 100]), np.array([0.0, 100.0, 100.0]))
        75.0
    """
    widths = np.diff(x)
    return float(np.sum(widths * (y[1:] + y[:-1]) / 2) / np.sum(widths))
