"""What the commands that correlate have in common: opening stores, and accounting for gaps."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from fbk_xattn.analysis import (
    CorrelationTable,
    Setting,
    TokenTable,
    correlate_store,
    correlate_tokens,
)
from fbk_xattn.analysis.collecting import Progress
from fbk_xattn.analysis.comparison import parameter, store_names
from fbk_xattn.analysis.maps import NAMES, flags_for
from fbk_xattn.analysis.words import WORD_START
from fbk_xattn.cli.results import note, show_progress
from fbk_xattn.errors import InputError
from fbk_xattn.store import AttributionStore


def open_stores(paths: Sequence[Path]) -> dict[str, AttributionStore]:
    """Open stores, by name.

    Raises:
        InputError: One is no store, or named twice.
    """
    check_named_once(paths)
    stores = [AttributionStore.open(path) for path in paths]
    return dict(zip(store_names(stores), stores, strict=True))


def check_named_once(paths: Sequence[Path]) -> None:
    """Check that no folder is there twice.

    Raises:
        InputError: One is, perhaps by another path.
    """
    resolved = [path.resolve() for path in paths]
    for number, path in enumerate(paths):
        if resolved[number] in resolved[:number]:
            raise InputError(f"{path}: named twice, expected each folder once")


def check_aggregation(aggregation: str | None, targets: Sequence[str]) -> None:
    """Check that what ``--aggregation`` brings to encoder steps is asked for.

    Raises:
        InputError: It is not.
    """
    if aggregation is not None and "input" not in targets:
        raise InputError(
            f"--aggregation {aggregation} with --target {' '.join(targets)}: only the input is "
            "aggregated"
        )


def column_names(stores: Mapping[str, AttributionStore]) -> Callable[[str, str], str]:
    """Return how a task of a store is called beside others: by the task alone in a single store."""
    return lambda name, task: f"{name}: {task}" if len(stores) > 1 else task


def what_varies(stores: Mapping[str, AttributionStore], columns: Iterable[tuple[str, str]]) -> str:
    """Return what tells columns side by side apart: ``task``, ``model``, ``store``, or ``column``.

    Args:
        stores: By name.
        columns: The store and task of each.
    """
    names, tasks = (dict.fromkeys(part) for part in zip(*columns, strict=True))
    if len(names) == 1:
        return "task"
    if len(tasks) > 1:
        return "column"
    models = {parameter(stores[name], "checkpoint SHA-256") for name in names} - {None}
    return "model" if len(models) == len(names) else "store"


def check_words(stores: Iterable[AttributionStore], words: str | None) -> None:
    """Check that tokens can be joined to words, which would else be one word an utterance.

    Raises:
        InputError: No token of a store has SentencePiece's mark.
    """
    for store in stores if words is not None else ():
        if _has_tokens_without_marks(store):
            raise InputError(
                f"{store.path}: no token begins with {WORD_START!r}, so where words start is not "
                "known; expected a SentencePiece vocabulary with --words"
            )


def _has_tokens_without_marks(store: AttributionStore) -> bool:
    """Tell whether a store has tokens and none with a mark; reads up to the first mark."""
    n_tokens = 0
    for utterance_id in store.ids():
        try:
            attribution = store.read(utterance_id)
        except InputError:  # what is damaged is said by what needs it
            return False
        tokens = attribution.tokens[attribution.content]
        if any(token.startswith(WORD_START) for token in tokens):
            return False
        n_tokens += len(tokens)
    return n_tokens > 0


def correlated(
    store: AttributionStore, name: str, settings: Sequence[Setting], *, absent_is_error: bool
) -> list[CorrelationTable]:
    """Correlate a store, and say on standard error what its means are without.

    Args:
        store: To read.
        name: For the notes, empty if there is no other store.
        settings: What to correlate.
        absent_is_error: Whether a target that the store lacks is an error.

    Raises:
        InputError: Nothing to correlate, or no correlation is defined.
    """
    tables = correlate_store(store, settings, absent_is_error=absent_is_error, progress=progress())
    if all(np.isnan(table.mean).all() for table in tables):
        raise _nothing_defined(store, tables, "over at least two content tokens")
    _note_absent([t.target for t in tables], [s.target for s in settings], name)
    for target, table in {table.target: table for table in tables}.items():
        start = _start(name, target)
        if undefined := table.undefined_ids:
            count = f"{len(undefined)} of {len(table.ids)}"
            note(f"{start}: correlation undefined for {count}: {', '.join(undefined)}")
        _note_left_out(start, table.left_out)
    return tables


def correlated_tokens(
    store: AttributionStore,
    name: str,
    settings: Sequence[Setting],
    *,
    absent_is_error: bool,
    words: str | None,
) -> list[TokenTable]:
    """Correlate the tokens of a store, and say on standard error what the tables are without.

    Args:
        store: To read.
        name: For the notes, empty if there is no other store.
        settings: What to correlate.
        absent_is_error: Whether a target that the store lacks is an error.
        words: How tokens are joined to words, or not at all.

    Raises:
        InputError: Nothing to correlate, or no correlation is defined.
    """
    tables = correlate_tokens(
        store, settings, absent_is_error=absent_is_error, progress=progress(), words=words
    )
    if not any(table.is_defined for table in tables):
        raise _nothing_defined(store, tables, "over the encoder steps")
    _note_absent([t.setting.target for t in tables], [s.target for s in settings], name)
    for table in tables:
        start = _start(name, table.setting.target)
        if not table.is_defined:
            note(f"{start}: correlation undefined for all of {len(table.tokens)} tokens")
        _note_left_out(start, table.left_out)
    return tables


def _nothing_defined(
    store: AttributionStore, tables: Sequence[CorrelationTable | TokenTable], over: str
) -> InputError:
    n_utterances = len({utterance_id for table in tables for utterance_id in table.ids})
    return InputError(
        f"{store.path}: no correlation is defined for any of {n_utterances} utterances, expected "
        f"maps that vary {over}"
    )


def _start(name: str, target: str) -> str:
    """Return how notes on a target of a store begin."""
    return f"{name}: {NAMES[target]}" if name else NAMES[target]


def _note_left_out(start: str, left_out: Mapping[str, str]) -> None:
    """Name the utterances that a table is without."""
    if left_out:
        names = ", ".join(f"{name} ({reason})" for name, reason in left_out.items())
        note(f"{start}: {len(left_out)} utterances left out: {names}")


def _note_absent(there: Sequence[str], wanted: Sequence[str], name: str) -> None:
    """Name every target without a table."""
    for target in dict.fromkeys(wanted):
        if target not in there:
            where = f"{name}: " if name else ""
            note(f"{where}no {NAMES[target]} in this store ({flags_for([target])} saves it)")


def progress() -> Progress | None:
    """Return what shows progress on standard error, where that is a terminal."""
    return show_progress if sys.stderr.isatty() else None
