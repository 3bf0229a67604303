"""Tables of how alike the saliency maps of two stores are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fbk_xattn.analysis.agreement import QUANTILE, Agreement
from fbk_xattn.analysis.maps import NAMES
from fbk_xattn.report.grid import Grid, Quote
from fbk_xattn.report.tables import UNDEFINED, left_out

Named = Sequence[tuple[str, Agreement]]
Differences = Mapping[str, tuple[Any, Any]]
DECIMALS = 5  # what precision costs is in the last of them


def agreement_grid(agreements: Named, differences: Mapping[str, Differences] | None = None) -> Grid:
    """Lay out median, low quantile and least correlation of the tokens of each pair of stores.

    In CSV: one row a token, with its utterance and correlation in full precision (``nan`` where
    undefined).

    Args:
        agreements: With the name of the pair.
        differences: Of pairs by name, the parameters in which the stores differ and their values.
    """
    said = {name: describe_differences(each) for name, each in (differences or {}).items()}

    def caption(quote: Quote) -> str:
        different = [name for _, each in agreements for name in each.other_hypotheses]
        return " ".join(
            [
                "Pearson correlation of the maps of each content token in two stores.",
                *(f"{quote(name)} differ in {how}." for name, how in said.items()),
                *left_out(dict.fromkeys(different, "another hypothesis"), quote),
            ]
        )

    percentile = f"{100 * QUANTILE:.0f}th percentile"
    return Grid(
        caption=caption,
        label="agreement",
        header=("stores", "maps", "tokens", "undefined", "median", percentile, "least"),
        rows=tuple(
            (
                name,
                describe_maps(each),
                str(len(each.correlation)),
                str(each.n_undefined),
                *(number(value) for value in (each.median, each.quantile(), each.least)),
            )
            for name, each in agreements
        ),
        records=tuple(
            {
                "stores": name,
                **({"differ_in": said[name]} if name in said else {}),
                "target": each.target,
                "aggregation": each.aggregation or "",
                "utterance": each.ids[utterance],
                "token": token,
                "correlation": value,
            }
            for name, each in agreements
            for utterance, token, value in zip(
                each.utterance.tolist(), each.tokens, each.correlation.tolist(), strict=True
            )
        ),
    )


def describe_maps(agreement: Agreement) -> str:
    """Say which maps were compared."""
    if agreement.target == "input" and agreement.aggregation is None:
        return f"{NAMES['input']}, cells"
    how = f", {agreement.aggregation}" if agreement.aggregation else ""
    return NAMES[agreement.target] + how


def describe_differences(differences: Differences) -> str:
    """Name the parameters in which two stores differ, with their values."""
    return (
        ", ".join(f"{name} ({one}, {other})" for name, (one, other) in differences.items())
        or "no parameter"
    )


def number(value: float, decimals: int = DECIMALS) -> str:
    """Return a correlation in so many decimals, or that it is undefined."""
    return UNDEFINED if np.isnan(value) else f"{value:z.{decimals}f}"
