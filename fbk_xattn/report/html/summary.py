"""Tables and curves of the whole store, as the other commands have them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fbk_xattn.analysis import CorrelationTable, correlate_targets
from fbk_xattn.analysis.collecting import Progress
from fbk_xattn.analysis.comparison import check_same_decoding, store_names
from fbk_xattn.analysis.deletion import ScoredCurve, evaluate
from fbk_xattn.analysis.maps import CROSS_ATTENTION, NAMES, TARGETS, flags_for, has_part
from fbk_xattn.analysis.quality import quality
from fbk_xattn.errors import InputError
from fbk_xattn.report.grid import Grid
from fbk_xattn.report.html.curves import Chart, charts_of
from fbk_xattn.report.scores import curve_grid, quality_grid
from fbk_xattn.report.tables import cell_text, head_grid
from fbk_xattn.store import AttributionStore, CurveStore


@dataclass(frozen=True)
class Table:
    """A table of the page.

    Attributes:
        grid: Its texts.
        shares: Of each cell but the first of its row how strongly it is tinted, -1 to 1; empty for
            none.
    """

    grid: Grid
    shares: tuple[tuple[float, ...], ...] = ()

    @property
    def caption(self) -> str:
        """What the numbers are."""
        return self.grid.caption(str)


@dataclass(frozen=True)
class TargetTables:
    """Correlation with one kind of saliency.

    Attributes:
        name: Of the saliency.
        overall: All layers and heads averaged, with its interval, in words.
        table: Of the whole store; ``None`` where there is none.
        by_task: The same by task, where there are several: name, overall correlation, table.
        absent: Why there is none.
    """

    name: str
    overall: str = ""
    table: Table | None = None
    by_task: tuple[tuple[str, str, Table], ...] = ()
    absent: str = ""


@dataclass(frozen=True)
class Summary:
    """What the page says of the whole store.

    Attributes:
        correlations: By target.
        quality: Of the hypotheses; ``None`` where it cannot be computed.
        no_quality: Why it cannot.
        charts: Of deletion and insertion.
        areas: Under these curves.
    """

    correlations: tuple[TargetTables, ...]
    quality: Table | None
    no_quality: str = ""
    charts: tuple[Chart, ...] = ()
    areas: Table | None = None


def summarise(
    store: AttributionStore,
    aggregation: str,
    deletions: Sequence[CurveStore],
    progress: Progress | None = None,
) -> Summary:
    """Analyse all utterances of a store.

    Args:
        store: To read.
        aggregation: How input saliency is brought to encoder steps.
        deletions: Folders of deletion or insertion.
        progress: Called with the number of utterances done and of all.

    Raises:
        InputError: The store is empty or has a damaged file, or the folders cannot stand side by
            side.
    """
    check_same_decoding(deletions)
    curves = [
        (name, curve)
        for name, folder in zip(store_names(deletions), deletions, strict=True)
        for curve in evaluate(folder)
    ]
    scores, no_scores = _quality(store)
    return Summary(
        correlations=_correlations(store, aggregation, progress),
        quality=scores,
        no_quality=no_scores,
        charts=tuple(charts_of(curves)),
        areas=_areas(curves),
    )


def _areas(curves: Sequence[tuple[str, ScoredCurve]]) -> Table | None:
    return Table(curve_grid(curves)) if curves else None


def _correlations(
    store: AttributionStore, aggregation: str, progress: Progress | None
) -> tuple[TargetTables, ...]:
    try:
        tables = correlate_targets(
            store, aggregation=aggregation, absent_is_error=False, progress=progress
        )
    except InputError:
        # Of nothing to correlate the page says so; what is damaged stays an error.
        if any(_can_be_correlated(store, utterance_id) for utterance_id in store.ids()):
            raise
        tables = {}
    return tuple(_target_tables(target, tables.get(target)) for target in TARGETS)


def _can_be_correlated(store: AttributionStore, utterance_id: str) -> bool:
    attribution = store.read(utterance_id)
    return has_part(attribution, CROSS_ATTENTION) and any(
        has_part(attribution, target) for target in TARGETS
    )


def _target_tables(target: str, table: CorrelationTable | None) -> TargetTables:
    if table is None:
        flags = flags_for([target, CROSS_ATTENTION])
        return TargetTables(
            NAMES[target],
            absent=f"No utterance has both {NAMES[target]} and cross-attention ({flags} saves "
            "them).",
        )
    tasks = table.by_task()
    return TargetTables(
        name=NAMES[target],
        overall=_overall(table),
        table=_heads(table),
        by_task=tuple((name, _overall(part), _heads(part)) for name, part in tasks.items())
        if len(tasks) > 1
        else (),
    )


def _heads(table: CorrelationTable) -> Table:
    mean = np.nan_to_num(table.mean)
    strongest = np.abs(mean).max() or 1.0
    shares = tuple(tuple(row) for row in (mean / strongest).round(3).tolist())
    return Table(head_grid(table), shares)


def _overall(table: CorrelationTable) -> str:
    return cell_text(float(table.mean[-1, -1]))


def _quality(store: AttributionStore) -> tuple[Table | None, str]:
    try:
        name = store.path.resolve().name
        return Table(quality_grid([(name, each) for each in quality(store)])), ""
    except InputError as error:
        for utterance_id in store.ids():
            store.texts(utterance_id)  # raises again if the store is damaged
        return None, str(error)
