"""Tables of the correlations of single tokens: their distribution, as a whole and by group."""

from __future__ import annotations

from fbk_xattn.analysis.bootstrap import Bootstrap
from fbk_xattn.analysis.tokens import QUANTILES, TokenSummary, TokenTable
from fbk_xattn.report.grid import Grid, Quote
from fbk_xattn.report.tables import cell_text, describe, describe_interval, left_out, with_interval


def token_grid(table: TokenTable, store: str = "", bootstrap: Bootstrap | None = None) -> Grid:
    """Lay out mean and quantiles over tokens, of all layers, of each layer, and by group of tokens.

    In CSV: one row a group, named in ``group``, with the numbers in full precision.

    Args:
        table: The tokens.
        store: Name of their store, if it is to be told from others.
        bootstrap: For the interval of the mean, over utterances.
    """
    bootstrap = bootstrap or Bootstrap()
    by_layer = {
        f"layer {row + 1}": table.summary(row, bootstrap=bootstrap) for row in range(table.n_layers)
    }
    by_group = {
        name: table.summary(chosen=chosen, bootstrap=bootstrap)
        for name, chosen in table.groups().items()
    }
    rows = {"all": table.summary(bootstrap=bootstrap), **by_layer, **by_group}
    quantiles = [f"{100 * level:.0f}th" for level in QUANTILES]
    unit = "word" if table.words else "token"

    def caption(quote: Quote) -> str:
        whole = rows["all"]
        counted = f"{whole.n_tokens} {unit}s of {len(table.ids)} utterances."
        joined = f" (the maps of its tokens joined by their {table.words})" if table.words else ""
        return " ".join(
            [
                *([f"{quote(store)}:"] if store else []),
                describe(table.setting, [table.cross_attention]),
                f"Distribution over {counted} Each {unit} by itself{joined}; all layers and heads "
                "averaged, but for the rows of layers, whose heads are. Columns to the right: "
                "percentiles. "
                f"In brackets: {describe_interval(bootstrap)}.",
                *([f"Undefined: {whole.n_undefined} {unit}s."] if whole.n_undefined else []),
                *left_out(table.left_out, quote),
            ]
        )

    setting = table.setting
    return Grid(
        caption=caption,
        label="-".join([f"{unit}s", setting.target, *([store] if store else [])]),
        header=(f"{unit}s", "number", "undefined", "mean", *quantiles),
        rows=tuple((name, *_cells(summary)) for name, summary in rows.items()),
        rules=frozenset({1, 1 + len(by_layer)}),
        records=tuple(
            {
                **({"store": store} if store else {}),
                "target": setting.target,
                "aggregation": setting.aggregation or "",
                "normalize": setting.normalize,
                "coefficient": setting.coefficient,
                "cross_attention": table.cross_attention,
                "words": table.words or "",
                "group": name,
                "n_tokens": summary.n_tokens,
                "n_undefined": summary.n_undefined,
                "mean": summary.mean,
                "low": summary.low,
                "high": summary.high,
                **{
                    f"q{100 * level:02.0f}": value
                    for level, value in zip(QUANTILES, summary.quantiles, strict=True)
                },
            }
            for name, summary in rows.items()
        ),
    )


def _cells(summary: TokenSummary) -> list[str]:
    return [
        str(summary.n_tokens),
        str(summary.n_undefined),
        with_interval(summary.mean, summary.low, summary.high),
        *map(cell_text, summary.quantiles),
    ]
