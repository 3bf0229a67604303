"""Figures of whole stores: curves, correlations by layer and head, and by token."""

from __future__ import annotations

import argparse

from fbk_xattn.analysis import TARGETS, Setting
from fbk_xattn.cli.evaluate import scored_curves
from fbk_xattn.cli.plot_files import figure_files, write_figure
from fbk_xattn.cli.reading import (
    check_aggregation,
    check_words,
    correlated,
    correlated_tokens,
    open_stores,
)
from fbk_xattn.report.figures import draw_curves, draw_distribution, draw_heads


def plot_deletion(args: argparse.Namespace) -> int:
    """Draw the curves of folders of deletion and insertion.

    Raises:
        InputError: As for ``fbk-xattn evaluate``, or a place that cannot be written.
    """
    (file,) = figure_files(args, [args.figure])
    args.folders = args.stores
    write_figure(draw_curves(scored_curves(args), width=args.width), file)
    return 0


def plot_layers(args: argparse.Namespace) -> int:
    """Draw the correlation of each layer and head, a row of panels a store.

    Raises:
        InputError: As for ``fbk-xattn correlate``, or a place that cannot be written.
    """
    (file,) = figure_files(args, [args.figure])
    stores = open_stores(args.stores)
    named = []
    for name, store in stores.items():
        label = name if len(stores) > 1 else ""
        tables = correlated(store, label, _settings(args), absent_is_error=bool(args.target))
        named += [(label, table) for table in tables]
    figure = draw_heads(
        named, width=args.width, same_scale=args.same_scale, header=not args.no_header
    )
    write_figure(figure, file)
    return 0


def plot_tokens(args: argparse.Namespace) -> int:
    """Draw the distribution of the correlations of tokens, a row of panels a store.

    Raises:
        InputError: As for ``fbk-xattn correlate --by tokens``, or a place that cannot be written.
    """
    (file,) = figure_files(args, [args.figure])
    stores = open_stores(args.stores)
    check_words(stores.values(), args.words)
    named = []
    for name, store in stores.items():
        label = name if len(stores) > 1 else ""
        tables = correlated_tokens(
            store,
            label,
            _settings(args),
            absent_is_error=bool(args.target),
            words=args.words,
        )
        named += [(label, table) for table in tables]
    figure = draw_distribution(
        named,
        kind=args.kind or "violin",
        width=args.width,
        header=not args.no_header,
    )
    write_figure(figure, file)
    return 0


def _settings(args: argparse.Namespace) -> list[Setting]:
    """Return what to correlate, each target once.

    Raises:
        InputError: An aggregation without the input.
    """
    check_aggregation(args.aggregation, args.target or TARGETS)
    return [
        Setting(
            target,
            args.aggregation or "2d-max",
            args.normalize or "both",
            args.coefficient or "pearson",
        )
        for target in dict.fromkeys(args.target or TARGETS)
    ]
