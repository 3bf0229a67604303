"""Correlation tables: layers by heads (paper, Table 1), and layers side by side (2, 3, 4, 6)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from fbk_xattn.analysis.bootstrap import Bootstrap
from fbk_xattn.analysis.coefficients import COEFFICIENTS
from fbk_xattn.analysis.comparison import check_same_utterances
from fbk_xattn.analysis.maps import NAMES, STORED_CROSS_ATTENTION
from fbk_xattn.analysis.table import CorrelationTable, Setting
from fbk_xattn.report.grid import FORMATS, Grid, Quote, render_grids

__all__ = ["FORMATS", "head_grid", "layer_grid", "probability_grid", "render"]

UNDEFINED = "n/a"
ABSENT = ""  # a layer that another model has
AVERAGE = "avg"
OVERALL = "overall"
NAMED_AT_MOST = 5
STANDARDISED = {
    "both": "",
    "cross-attention": "cross-attention alone standardised",
    "saliency": "saliency alone standardised",
    "none": "neither map standardised",
}


def render(tables: Sequence[CorrelationTable], form: str) -> str:
    """Render tables of layers by heads one after the other; in CSV they are one table.

    Args:
        tables: Of one store.
        form: Name in :data:`FORMATS`.

    Raises:
        InputError: ``form`` is not the name of a format.
    """
    return render_grids([head_grid(table) for table in tables], form)


def head_grid(table: CorrelationTable, store: str = "", bootstrap: Bootstrap | None = None) -> Grid:
    """Lay out layers by heads, three decimals, the best cell in bold (paper, Table 1).

    In CSV: ``store``, ``target``, ``aggregation`` (empty for the encoder output), ``normalize``,
    ``coefficient``, ``cross_attention`` (what was stored of it, ``weights`` or ``norms``),
    ``layer`` (from 1, or ``avg``), ``head_1`` to ``head_H``, ``avg`` and the ends of its interval
    ``avg_low`` and ``avg_high``, and of the whole table the number of utterances ``n_utterances``,
    of those with an undefined cell ``n_undefined``, and of those left out of it ``n_left_out``.
    Undefined values are ``nan``.

    Args:
        table: The table.
        store: Name of its store, if it is to be told from others.
        bootstrap: For the interval of the mean.
    """
    bootstrap = bootstrap or Bootstrap()
    mean, (low, high) = table.mean, table.interval(bootstrap)
    best = -np.inf if np.isnan(mean).all() else np.nanmax(mean)
    layers = layer_names(table.n_layers)
    heads = range(1, table.n_heads + 1)
    counts = {
        "n_utterances": len(table.ids),
        "n_undefined": len(table.undefined_ids),
        "n_left_out": len(table.left_out),
    }
    label = "-".join(["correlation", table.target, *([store] if store else [])])

    def caption(quote: Quote) -> str:
        overall = with_interval(mean[-1, -1], low[-1, -1], high[-1, -1])
        kind = describe_interval(bootstrap)
        spread = [] if np.isnan(low[-1, -1]) else [f"All layers and heads: {overall}, {kind}."]
        return " ".join(
            [
                *([f"{quote(store)}:"] if store else []),
                describe(table),
                "Last column and row: cross-attention averaged over heads and layers. The best "
                "value is marked, averages included.",
                *spread,
                *missing(table, quote),
            ]
        )

    return Grid(
        caption=caption,
        label=label,
        header=("layer", *(f"head {head}" for head in heads), AVERAGE),
        short_header=("layer", *(f"h{head}" for head in heads), AVERAGE),
        rows=tuple((layer, *map(cell_text, row)) for layer, row in zip(layers, mean, strict=True)),
        best=frozenset((int(r), int(c) + 1) for r, c in np.argwhere(mean == best)),
        rules=frozenset({table.n_layers}),
        records=tuple(
            {
                **({"store": store} if store else {}),
                **_setting_columns(table),
                "layer": layer,
                **{f"head_{head}": float(row[head - 1]) for head in heads},
                AVERAGE: float(row[-1]),
                "avg_low": float(low[number, -1]),
                "avg_high": float(high[number, -1]),
                **counts,
            }
            for number, (layer, row) in enumerate(zip(layers, mean, strict=True))
        ),
    )


def layer_grid(
    columns: Mapping[str, CorrelationTable],
    what: str,
    label: str,
    bootstrap: Bootstrap | None = None,
    heading: str = "",
) -> Grid:
    """Lay out layers (heads averaged) side by side, with the interval of each mean.

    The best layer of each column is in bold; below the line is the overall correlation, of all
    layers and heads averaged, which the caption calls so (paper, Tables 2, 3, 4 and 6).

    In CSV: one row a column and layer, with ``best`` 1 for the best layer of its column.

    Args:
        columns: Tables of one target by name of column; models may differ in their layers.
        what: What the columns are, for the caption and for the CSV.
        label: For LaTeX.
        bootstrap: For the intervals.
        heading: What all columns are of (a store), before the caption; empty for none.
    """
    bootstrap = bootstrap or Bootstrap()
    n_layers = max(table.n_layers for table in columns.values())
    names = [*layer_names(n_layers)[:-1], OVERALL]
    cells = [[ABSENT] * len(columns) for _ in names]
    best, records = set(), []
    for c, (column, table) in enumerate(columns.items()):
        means = table.mean[:, -1]
        low, high = table.interval(bootstrap)[:, :, -1]
        layers = means[:-1]
        top = -np.inf if np.isnan(layers).all() else np.nanmax(layers)
        for row, value in enumerate(means):
            # The last row of a model with fewer layers is still that of all of them.
            shown = n_layers if row == table.n_layers else row
            cells[shown][c] = with_interval(value, low[row], high[row])
            is_best = shown < n_layers and value == top
            if is_best:
                best.add((shown, c + 1))
            records.append(
                {
                    **({"store": heading} if heading else {}),
                    what: column,
                    **_setting_columns(table),
                    "layer": names[shown],
                    "correlation": float(value),
                    "low": float(low[row]),
                    "high": float(high[row]),
                    "best": int(is_best),
                    "n_utterances": len(table.ids),
                    "n_undefined": int(table.n_undefined[row, -1]),
                    "n_left_out": len(table.left_out),
                }
            )
    setting = next(iter(columns.values())).setting
    stored = dict.fromkeys(table.cross_attention for table in columns.values())

    def caption(quote: Quote) -> str:
        return " ".join(
            [
                *([f"{quote(heading)}:"] if heading else []),
                describe(setting, stored, aggregated=what != "aggregation"),
                f"By {what}, of each layer, its heads averaged (the best marked), and overall, all "
                f"layers and heads averaged. In brackets: "
                f"{describe_interval(bootstrap)}.",
                "Mean over "
                + ", ".join(f"{quote(n)}: {_count(len(t.ids))}" for n, t in columns.items())
                + ".",
                *(
                    f"{quote(name)}: {sentence}"
                    for name, table in columns.items()
                    for sentence in missing(table, quote)
                ),
            ]
        )

    return Grid(
        caption=caption,
        label=label,
        header=("layer", *columns),
        rows=tuple((name, *row) for name, row in zip(names, cells, strict=True)),
        best=frozenset(best),
        rules=frozenset({n_layers}),
        records=tuple(records),
    )


def probability_grid(
    tables: Mapping[float, tuple[str, CorrelationTable]],
    target: str,
    bootstrap: Bootstrap,
    heading: str = "",
) -> Grid:
    """Lay out layers by occlusion probability, in rising order (paper, Table 6).

    Args:
        tables: By probability, each with the name of its store.
        target: Which saliency.
        bootstrap: For the intervals.
        heading: Before the caption, empty for none.

    Raises:
        InputError: The tables are not of the same utterances.
    """
    check_same_utterances({name: {*table.ids} for name, table in tables.values()})
    columns = {f"{p:g}": table for p, (_, table) in sorted(tables.items())}
    label = "-".join(["probability", target, *([heading] if heading else [])])
    return layer_grid(columns, "occlusion probability", label, bootstrap, heading)


def layer_names(n_layers: int) -> list[str]:
    """Return the names of the rows: layers from 1, and their average."""
    return [*(str(layer) for layer in range(1, n_layers + 1)), AVERAGE]


def describe(
    table: CorrelationTable | Setting, stored: Iterable[str] = (), *, aggregated: bool = True
) -> str:
    """Say in one sentence what the numbers of a table are.

    Args:
        table: The table, or the setting of numbers that are not means over utterances.
        stored: With a setting, what was stored of cross-attention, names in
            :data:`~fbk_xattn.analysis.maps.STORED_CROSS_ATTENTION`.
        aggregated: Whether to say how the saliency was aggregated.
    """
    how = [f"aggregated with {table.aggregation}"] if table.aggregation and aggregated else []
    how += [STANDARDISED[table.normalize]] if STANDARDISED[table.normalize] else []
    name = COEFFICIENTS[table.coefficient].metric.name
    stored = [table.cross_attention] if isinstance(table, CorrelationTable) else stored
    what = " and ".join(STORED_CROSS_ATTENTION[value] for value in stored)
    text = f"{name} correlation of {what} with " + ", ".join([NAMES[table.target], *how])
    if isinstance(table, Setting):
        return text + "."
    some = "the defined values of " if table.undefined_ids else ""
    return f"{text}: mean over {some}{_count(len(table.ids))}."


def describe_interval(bootstrap: Bootstrap) -> str:
    """Say what an interval is."""
    return (
        f"{100 * bootstrap.level:.4g}-percent bootstrap interval over utterances "
        f"({bootstrap.n_resamples} resamples, seed {bootstrap.seed})"
    )


def missing(table: CorrelationTable, quote: Quote) -> list[str]:
    """Return sentences on the utterances that the means are without, none if there are none."""
    names = table.undefined_ids
    parts = left_out(table.left_out, quote)
    if names:
        listed = _listed(quote(name) for name in names)
        parts.insert(0, f"Undefined in at least one cell: {_count(len(names))} ({listed}).")
    return parts


def left_out(reasons: Mapping[str, str], quote: Quote) -> list[str]:
    """Return a sentence on the utterances that are left out, none if there are none."""
    if not reasons:
        return []
    listed = _listed(f"{quote(name)}: {reason}" for name, reason in reasons.items())
    return [f"Left out: {_count(len(reasons))} ({listed})."]


def _setting_columns(table: CorrelationTable) -> dict[str, object]:
    return {
        "target": table.target,
        "aggregation": table.aggregation or "",
        "normalize": table.normalize,
        "coefficient": table.coefficient,
        "cross_attention": table.cross_attention,
    }


def with_interval(value: float, low: float, high: float) -> str:
    """Return a number with its interval in brackets, if it has one."""
    return (
        cell_text(value)
        if np.isnan(low)
        else f"{cell_text(value)} [{cell_text(low)}, {cell_text(high)}]"
    )


def cell_text(value: float) -> str:
    """Return a number in three decimals, or that it is undefined."""
    return UNDEFINED if np.isnan(value) else f"{value:z.3f}"


def _count(n_utterances: int) -> str:
    return "1 utterance" if n_utterances == 1 else f"{n_utterances} utterances"


def _listed(items: Iterable[str]) -> str:
    """Join the first items, and say how many more there are."""
    everything = list(items)
    more = len(everything) - NAMED_AT_MOST
    return ", ".join(everything[:NAMED_AT_MOST]) + (f" and {more} more" if more > 0 else "")
