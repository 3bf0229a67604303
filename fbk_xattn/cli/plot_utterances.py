"""Figures of utterances: their maps, and their saliency over the spectrogram."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from urllib.parse import quote

from fbk_xattn.analysis.maps import CROSS_ATTENTION, flags_for, stored_cross_attention
from fbk_xattn.cli.plot_files import figure_files, write_figure
from fbk_xattn.cli.reading import check_words, open_stores
from fbk_xattn.errors import InputError
from fbk_xattn.report.figures import draw_maps, draw_spectrogram
from fbk_xattn.store import Attribution, AttributionStore

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Stores = Mapping[str, AttributionStore]


@dataclass(frozen=True)
class Chosen:
    """An utterance to draw.

    Attributes:
        id: Its id.
        store: Where it is.
        store_name: Name of the store, empty if there is no other.
    """

    id: str
    store: AttributionStore
    store_name: str

    def read(self) -> Attribution:
        """Read the utterance; where there are several stores, its name says of which it is."""
        attribution = self.store.read(self.id)
        if self.store_name:
            return replace(attribution, id=f"{self.store_name}: {self.id}")
        return attribution


def plot_maps(args: argparse.Namespace) -> int:
    """Draw saliency maps and cross-attention, one figure an utterance or one of all.

    Raises:
        InputError: As for ``run`` of :mod:`fbk_xattn.cli.plot`.
    """
    layers, heads = _from_zero("--layers", args.layers), _from_zero("--heads", args.heads)

    def draw(chosen: Sequence[Chosen]) -> Figure:
        return draw_maps(
            [one.read() for one in chosen],
            width=args.width,
            aggregation=args.aggregation or "2d-max",
            layers=layers,
            heads=heads,
            words=args.words,
            same_scale=args.same_scale,
            arrangement=args.together or "rows",
            header=not args.no_header,
            stored=[stored_cross_attention(one.store) for one in chosen],
        )

    chosen = _chosen(args)
    if layers or heads:
        _check_heads(chosen, layers, heads)
    if args.together:
        (file,) = figure_files(args, ["maps"])
        write_figure(draw(chosen), file)
        return 0
    return _one_by_one(args, chosen, lambda one: draw([one]))


def plot_saliency(args: argparse.Namespace) -> int:
    """Draw the saliency of each token over the spectrogram, one figure an utterance.

    Raises:
        InputError: As for ``run`` of :mod:`fbk_xattn.cli.plot`.
    """
    rows = _from_zero("--rows", args.rows)

    def draw(one: Chosen) -> Figure:
        return draw_spectrogram(
            one.read(),
            width=args.width,
            rows=rows,
            words=args.words,
            header=not args.no_header,
        )

    return _one_by_one(args, _chosen(args), draw)


def _one_by_one(
    args: argparse.Namespace, chosen: Sequence[Chosen], draw: Callable[[Chosen], Figure]
) -> int:
    """Write a figure an utterance; of ``--all``, those that cannot be drawn are counted."""
    files = figure_files(args, _names(chosen))
    n_failed = 0
    for one, file in zip(chosen, files, strict=True):
        try:
            write_figure(draw(one), file)
        except InputError as error:
            if not args.all:
                raise
            print(f"fbk-xattn: not drawn: {error}", file=sys.stderr)
            n_failed += 1
    if n_failed:
        print(f"fbk-xattn: {n_failed} of {len(files)} utterances not drawn", file=sys.stderr)
    return 1 if n_failed else 0


def _chosen(args: argparse.Namespace) -> list[Chosen]:
    """Return the utterances to draw: each id asked for in every store that has it."""
    stores = open_stores(args.stores)
    check_words(stores.values(), args.words)
    ids = {name: store.ids() for name, store in stores.items()}
    for name, there in ids.items():
        if not there:
            raise InputError(
                f"{stores[name].path}: no utterance in this store, expected at least one"
            )
    everything = list(dict.fromkeys(i for there in ids.values() for i in there))
    wanted = everything if args.all else list(dict.fromkeys(args.id))
    known = {name: frozenset(there) for name, there in ids.items()}
    chosen = []
    for utterance_id in wanted:
        found = [name for name in stores if utterance_id in known[name]]
        if not found:
            paths = ", ".join(str(store.path) for store in stores.values())
            raise InputError(
                f"--id {utterance_id!r}: not among the {len(everything)} utterances of {paths}, "
                f"expected for example {', '.join(everything[:3])}"
            )
        chosen += [
            Chosen(utterance_id, stores[name], name if len(stores) > 1 else "") for name in found
        ]
    return chosen


def _names(chosen: Sequence[Chosen]) -> list[str]:
    """Return a name for the file of each utterance, the shortest that are all different."""
    plain = [one.id.replace("/", "_") for one in chosen]
    # Ids such as a/b and a_b would share a file; the names of a store's files are distinct.
    whole = [one.store.file(one.id).stem for one in chosen]
    stores = [quote(one.store_name, safe=" ") for one in chosen]
    for names in (plain, whole):
        for named in (names, [f"{s}_{name}" for s, name in zip(stores, names, strict=True)]):
            if len(set(named)) == len(named):
                return named
    raise InputError(f"{', '.join(plain)}: files would have the same names, expected other ids")


def _check_heads(
    chosen: Sequence[Chosen], layers: list[int] | None, heads: list[int] | None
) -> None:
    """Check the numbers against one utterance, all those of a store being of one model."""
    read = (one.read().cross_attention for one in chosen)
    weights = next((each for each in read if each is not None), None)
    for flag, numbers, axis in (("--layers", layers, 0), ("--heads", heads, 1)):
        if not numbers:
            continue
        if weights is None:
            raise InputError(
                f"{flag} {numbers[-1] + 1}: no utterance has cross-attention, expected a run of "
                f"fairseq-generate with {flags_for([CROSS_ATTENTION])}"
            )
        if numbers[-1] >= (n := weights.shape[axis]):
            raise InputError(f"{flag} {numbers[-1] + 1}: expected 1 to {n}, as the model has")


def _from_zero(flag: str, numbers: Sequence[int] | None) -> list[int] | None:
    """Turn numbers counted from 1 into indices, each once and in order."""
    if numbers is None:
        return None
    for number in numbers:
        if number < 1:
            raise InputError(f"{flag} {number}: expected numbers from 1")
    return sorted({number - 1 for number in numbers})
