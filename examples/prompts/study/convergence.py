"""Section on how far the maps have converged, and on what precision costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from examples.prompts.study.measure import Explained, agreements, explained
from examples.prompts.study.settings import HALF, REFERENCE, SEEDS
from fbk_xattn.analysis import Setting
from fbk_xattn.analysis.agreement import QUANTILE, Agreement
from fbk_xattn.files import whole_file
from fbk_xattn.report.agreement import DECIMALS, describe_maps, number
from fbk_xattn.report.grid import Grid
from fbk_xattn.report.tables import UNDEFINED

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SEEDS_DECIMALS = 3
WANTED = 0.95  # median agreement that masks are counted for
PERCENTILE = f"{100 * QUANTILE:.0f}th percentile"


@dataclass(frozen=True)
class Point:
    """Two stores that are compared in one kind of map.

    Attributes:
        name: What tells the pair from others: number of masks, or precision.
        n_masks: Of both.
        agreement: Of their maps.
        change: ``(U,)``, by how much the correlation of an utterance's map with its cross-attention
            (all layers and heads averaged) differs; NaN where undefined.
    """

    name: str
    n_masks: int
    agreement: Agreement
    change: NDArray[np.float64]


def seed_points(work: Path) -> list[Point]:
    """Return the pairs of seeds by rising number of masks, each in every kind of map.

    Raises:
        InputError: A store is missing.
    """
    points = [point for one, other in SEEDS for point in _points(work, one, other, "")]
    return sorted(points, key=lambda point: point.n_masks)


def precision_points(work: Path) -> list[Point]:
    """Return every half precision beside single precision, each in every kind of map.

    Raises:
        InputError: A store is missing.
    """
    return [point for name in HALF for point in _points(work, REFERENCE, name, name)]


def masks_for(median: float, n_masks: int, wanted: float = WANTED) -> float:
    """Return how many masks two runs need to agree as wanted, from how two of ``n_masks`` agree.

    By the formula of Spearman and Brown (1910): k times the masks turn an agreement r into
    k r / (1 + (k - 1) r).

    Args:
        median: r, of typical tokens.
        n_masks: Masks of each run.
        wanted: Less than 1.

    Returns:
        NaN for an r that is not between 0 and 1.
    """
    if not 0 < median < 1:
        return float("nan")
    return n_masks * wanted * (1 - median) / (median * (1 - wanted))


def seeds_grid(points: Sequence[Point]) -> Grid:
    """Lay out the agreement of two seeds by number of masks."""
    rows: list[tuple[str, ...]] = []
    rules: set[int] = set()
    for kind, of_kind in by_kind(points).items():
        if rows:
            rules.add(len(rows))
        for point in of_kind:
            median = point.agreement.median
            needed = masks_for(median, point.n_masks)
            rows.append(
                (
                    kind,
                    f"{point.n_masks:,}",
                    *_agreement_cells(point, SEEDS_DECIMALS),
                    number(np.sqrt(median), SEEDS_DECIMALS) if median >= 0 else UNDEFINED,
                    UNDEFINED if np.isnan(needed) else f"{float(f'{needed:.2g}'):,.0f}",
                )
            )
    n_utterances = len(points[0].agreement.ids)
    return Grid(
        caption=lambda _: (
            "Two seeds of the masks: Pearson correlation of the maps of each content token, over "
            f"{n_utterances} utterances. *Infinitely many*: what the median says of the "
            "correlation with the map of infinitely many masks (its square root). "
            f"*Masks for a median of {WANTED:g}*: by the formula of Spearman and Brown. *Change*: "
            "mean of the absolute difference that the seed makes to an utterance's correlation "
            "with cross-attention (all layers and heads averaged), for maps at encoder steps."
        ),
        label="seeds",
        header=(
            *("maps", "masks", "tokens", "median", PERCENTILE, "least", "change"),
            *("infinitely many", f"masks for a median of {WANTED:g}"),
        ),
        rows=tuple(rows),
        rules=frozenset(rules),
    )


def precision_grid(points: Sequence[Point]) -> Grid:
    """Lay out the agreement of half with single precision."""
    return Grid(
        caption=lambda _: (
            f"Half precision beside {REFERENCE}, with the same masks ({points[0].n_masks:,}), over "
            f"{len(points[0].agreement.ids)} utterances; columns as above."
        ),
        label="precision",
        header=("maps", "precision", "tokens", "median", PERCENTILE, "least", "change"),
        rows=tuple(
            (kind, point.name, *_agreement_cells(point, DECIMALS))
            for kind, of_kind in by_kind(points).items()
            for point in of_kind
        ),
    )


def statement(points: Sequence[Point]) -> str:
    """Say how far the largest number of masks has converged, for every kind of map."""
    parts = []
    for kind, of_kind in by_kind(points).items():
        last = of_kind[-1]
        found = last.agreement
        median, low, least = (
            number(value, SEEDS_DECIMALS) for value in (found.median, found.quantile(), found.least)
        )
        needed = masks_for(found.median, last.n_masks)
        enough = (
            ""
            if np.isnan(needed)
            else f"; by the formula of Spearman and Brown, a median of {WANTED:g} takes about "
            f"{float(f'{needed:.2g}'):,.0f} masks"
        )
        parts.append(
            f"- {kind}: with {last.n_masks:,} masks, two seeds agree with a median of "
            f"{median}; one token in {1 / QUANTILE:.0f} is below "
            f"{low}, the worst at {least}{enough}."
        )
    return "\n".join(parts) + "\n"


def by_kind(points: Sequence[Point]) -> dict[str, list[Point]]:
    """Group the points by what was compared, in their order."""
    kinds: dict[str, list[Point]] = {}
    for point in points:
        kinds.setdefault(describe_maps(point.agreement), []).append(point)
    return kinds


def write_figure(points: Sequence[Point], output: Path) -> None:
    """Draw the agreement of two seeds over the number of masks into a PNG.

    Raises:
        InputError: The file cannot be written.
    """
    figure = draw(points)
    with whole_file(output) as temporary:
        figure.savefig(temporary, format="png", dpi=110, metadata={"Software": None})


def draw(points: Sequence[Point]) -> Figure:
    """Draw a panel for each kind of map: median, and the band from a low quantile to its mirror."""
    from matplotlib.figure import Figure

    kinds = by_kind(points)
    figure = Figure(figsize=(3.1 * len(kinds), 3.0), layout="constrained")
    axes = figure.subplots(1, len(kinds), sharey=True, squeeze=False)[0]
    for panel, (kind, of_kind) in zip(axes, kinds.items(), strict=True):
        masks = [point.n_masks for point in of_kind]
        found = [point.agreement for point in of_kind]
        low, high = ([each.quantile(level) for each in found] for level in (QUANTILE, 1 - QUANTILE))
        panel.fill_between(masks, low, high, alpha=0.25, linewidth=0, label="5 % to 95 % of tokens")
        panel.plot(masks, [each.median for each in found], marker="o", label="median")
        panel.plot(masks, [each.least for each in found], "v", markersize=4, label="least")
        panel.axhline(1.0, color="0.6", linewidth=0.8)
        panel.set_xscale("log")
        panel.set_xticks(masks, [f"{n:,}" for n in masks], rotation=30)
        panel.minorticks_off()
        panel.set_title(kind, fontsize=9)
        panel.set_xlabel("masks")
    axes[0].set_ylabel("Pearson correlation of two seeds")
    axes[0].legend(fontsize=7)
    return figure


def _points(work: Path, one: str, other: str, name: str) -> list[Point]:
    first, second = explained(work, one), explained(work, other)
    n_masks = int(first.meta["parameters"]["--num-masks"])
    return [
        Point(name, n_masks, found, _change(first, second, found))
        for found in agreements(work, one, other)
    ]


def _change(first: Explained, second: Explained, found: Agreement) -> NDArray[np.float64]:
    if found.target == "input" and found.aggregation is None:
        return np.full(len(found.ids), np.nan)  # cells are not what is correlated
    setting = Setting(found.target, found.aggregation)
    one, other = (each.tables[setting].per_utterance[:, -1, -1] for each in (first, second))
    return one - other


def _agreement_cells(point: Point, decimals: int) -> tuple[str, ...]:
    found = point.agreement
    values = (found.median, found.quantile(), found.least)
    change = np.abs(point.change[np.isfinite(point.change)])
    return (
        str(len(found.defined)),
        *(number(value, decimals) for value in values),
        number(float(change.mean()), decimals) if change.size else "-",
    )
