"""How finely maps are quantised, so that a page stays small enough to send."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fbk_xattn.report.html.packing import estimated_bytes

# Numbers of values that a map can take between its least and its greatest one.
LEVELS = (256, 192, 128, 96, 64, 48, 32, 24, 16)
# 50 utterances in less than 25 MB, with room for what the estimate is off by.
BYTES_PER_UTTERANCE = 480_000
SMALLEST_LIMIT = 24_000_000


@dataclass(frozen=True)
class Cost:
    """Bytes of a page that an utterance takes.

    Attributes:
        fixed: Of what is always stored alike.
        by_levels: Of the large maps, for each of :data:`LEVELS`.
    """

    fixed: float
    by_levels: tuple[float, ...]


def costs_of(rows: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return about how many bytes maps take at each of :data:`LEVELS`.

    Args:
        rows: ``(R, K)``, the maps, each quantised between its least and greatest value.
    """
    if rows.size == 0:
        return np.zeros(len(LEVELS))
    low = rows.min(axis=1, keepdims=True)
    width = rows.max(axis=1, keepdims=True) - low
    scaled = (rows - low) / np.where(width > 0, width, 1)
    return np.array(
        [
            estimated_bytes(np.rint(scaled * np.float32(levels - 1)).astype(np.uint8))
            for levels in LEVELS
        ]
    )


def choose_levels(costs: Sequence[Cost]) -> int:
    """Return the finest of :data:`LEVELS` with which all utterances fit.

    They share one limit: that of 50 utterances, or for more of them 480 kB each. Where not even
    the coarsest fits, it is that one.
    """
    limit = max(SMALLEST_LIMIT, BYTES_PER_UTTERANCE * len(costs))
    fixed = sum(cost.fixed for cost in costs)
    for number, levels in enumerate(LEVELS):
        if fixed + sum(cost.by_levels[number] for cost in costs) <= limit:
            return levels
    return LEVELS[-1]
