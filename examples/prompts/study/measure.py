"""What RESULTS.md needs of the stores, in files that are a hundredth of their size.

    python -m examples.prompts.study.measure WORK [--processes N]

``WORK/measured/`` is enough for ``results.py``: stores and decoded curves may stay where they are.
What is measured already, and newer than its store, is not measured again.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from examples.prompts.study.settings import COMPARED, CURVES, EXPLAINED, PAIRS, missing
from fbk_xattn.analysis import AGGREGATIONS, CorrelationTable, Setting, correlate_store
from fbk_xattn.analysis.agreement import Agreement, agreement
from fbk_xattn.analysis.size import size
from fbk_xattn.analysis.table import task_name
from fbk_xattn.errors import InputError
from fbk_xattn.files import reading_arrays, whole_file
from fbk_xattn.store import AttributionStore, CurveStore

SETTINGS = (*(Setting("input", how) for how in AGGREGATIONS), Setting("encoder"))
Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, eq=False)
class Explained:
    """What is kept of an attribution store.

    Attributes:
        meta: Of the store.
        ids: The ``U`` utterances.
        languages: Theirs: spoken, and of the hypothesis.
        speakers: Theirs.
        references: Theirs.
        hypotheses: Theirs.
        tables: A correlation table for each of :data:`SETTINGS`.
        size: ``(U, 21)``, see :class:`~fbk_xattn.analysis.size.SizeCurve`.
        n_bytes: Of the utterances' files together.
    """

    meta: Mapping[str, Any]
    ids: tuple[str, ...]
    languages: tuple[tuple[str, str], ...]
    speakers: tuple[str, ...]
    references: tuple[str, ...]
    hypotheses: tuple[str, ...]
    tables: Mapping[Setting, CorrelationTable]
    size: NDArray[np.float64]
    n_bytes: int

    @property
    def tasks(self) -> tuple[str, ...]:
        """Task of each utterance."""
        return tuple(task_name(*pair) for pair in self.languages)


@dataclass(frozen=True, eq=False)
class Curves:
    """What is kept of a folder of deletion or insertion.

    Attributes:
        meta: Of the folder.
        ids: The ``U`` utterances.
        languages: Theirs: spoken, and of the hypotheses.
        references: Theirs.
        percentages: ``(P,)``, share removed or kept.
        hypotheses: For each utterance the ``P`` texts.
    """

    meta: Mapping[str, Any]
    ids: tuple[str, ...]
    languages: tuple[tuple[str, str], ...]
    references: tuple[str, ...]
    percentages: NDArray[np.int64]
    hypotheses: tuple[tuple[str, ...], ...]

    @property
    def tasks(self) -> tuple[str, ...]:
        """Task of each utterance."""
        return tuple(task_name(*pair) for pair in self.languages)


def explained(work: Path, name: str) -> Explained:
    """Return what is kept of a store, measuring it if that is not done.

    Raises:
        InputError: Neither store nor measurement is there, or the store is incomplete.
    """
    arrays = _cached(work, name, [_stores(work) / name], lambda: _measure_store(work, name))
    languages = _pairs(arrays["languages"])
    ids = _texts(arrays["ids"])
    tables = {
        setting: CorrelationTable(
            target=setting.target,
            aggregation=setting.aggregation,
            ids=ids,
            per_utterance=arrays[f"correlation_{number}"],
            languages=languages,
        )
        for number, setting in enumerate(SETTINGS)
    }
    return Explained(
        meta=json.loads(str(arrays["meta"])),
        ids=ids,
        languages=languages,
        speakers=_texts(arrays["speakers"]),
        references=_texts(arrays["references"]),
        hypotheses=_texts(arrays["hypotheses"]),
        tables=tables,
        size=arrays["size"],
        n_bytes=int(arrays["n_bytes"]),
    )


def curves(work: Path, name: str) -> Curves:
    """Return what is kept of a folder of deletion or insertion, measuring it if need be.

    Raises:
        InputError: Neither folder nor measurement is there.
    """
    arrays = _cached(work, name, [work / "deleted" / name], lambda: _measure_curves(work, name))
    return Curves(
        meta=json.loads(str(arrays["meta"])),
        ids=_texts(arrays["ids"]),
        languages=_pairs(arrays["languages"]),
        references=_texts(arrays["references"]),
        percentages=arrays["percentages"],
        hypotheses=tuple(_texts(row) for row in arrays["hypotheses"]),
    )


def agreements(work: Path, one: str, other: str) -> list[Agreement]:
    """Return how two stores agree in each of :data:`~settings.COMPARED`, measuring it if need be.

    Raises:
        InputError: Neither stores nor measurement are there, or the stores do not compare.
    """
    sources = [_stores(work) / one, _stores(work) / other]
    arrays = _cached(work, f"{one},{other}", sources, lambda: _measure_pair(work, one, other))
    return [
        Agreement(
            target=target,
            aggregation=aggregation,
            ids=_texts(arrays["ids"]),
            utterance=arrays["utterance"],
            tokens=_texts(arrays["tokens"]),
            correlation=arrays[f"correlation_{number}"],
            other_hypotheses=_texts(arrays["other_hypotheses"]),
        )
        for number, (target, aggregation) in enumerate(COMPARED)
    ]


def check_complete(work: Path) -> None:
    """Check that every store and folder of the study is there, or its measurement.

    Raises:
        InputError: Some are not; the message has the command that makes all of these.
    """
    places = {
        **{name: _stores(work) / name for name in EXPLAINED},
        **{name: work / "deleted" / name for name in CURVES},
    }
    absent = [
        name
        for name, place in places.items()
        if not (place / "meta.json").is_file() and not _measured(work, name).is_file()
    ]
    if absent:
        raise missing(work, *absent)


def _measured(work: Path, name: str) -> Path:
    return work / "measured" / f"{name.replace(',', '_')}.npz"


def _stores(work: Path) -> Path:
    return work / "stores"


def _cached(work: Path, name: str, sources: Sequence[Path], measure: Any) -> Arrays:
    """Return the arrays of a measurement, made anew where a source is newer."""
    file = _measured(work, name)
    there = [source for source in sources if (source / "meta.json").is_file()]
    if len(there) == len(sources):
        newest = max(each.stat().st_mtime for s in sources for each in (s, *s.glob("*.npz")))
        if not file.is_file() or file.stat().st_mtime < newest:
            with whole_file(file) as temporary, temporary.open("wb") as handle:
                np.savez_compressed(handle, allow_pickle=False, **measure())
    elif not file.is_file():
        raise missing(work, *(source.name for source in sources if source not in there))
    try:
        with reading_arrays(), np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except Exception as error:  # zipfile, zlib and numpy raise many kinds for a damaged file
        raise InputError(f"{file}: unreadable ({error}); delete it to measure again") from None


def _measure_store(work: Path, name: str) -> Arrays:
    store = AttributionStore.open(_stores(work) / name)
    tables = correlate_store(store, SETTINGS)
    sizes = size(store)
    ids = store.ids()
    if left_out := [i for t in tables for i in t.left_out] + list(sizes.left_out):
        raise InputError(f"{store.path}: {left_out[0]!r} lacks a map, expected {name} made anew")
    texts = [store.texts(utterance_id) for utterance_id in ids]
    return {
        "meta": np.array(json.dumps(store.meta)),
        "ids": np.array(ids),
        "languages": np.array([(text["src_lang"], text["tgt_lang"]) for text in texts]),
        "speakers": np.array([text["speaker"] for text in texts]),
        "references": np.array([text["tgt_text"] for text in texts]),
        "hypotheses": np.array([text["hypothesis"] for text in texts]),
        "size": sizes.per_utterance,
        "n_bytes": np.array(sum(store.file(utterance_id).stat().st_size for utterance_id in ids)),
        **{f"correlation_{n}": table.per_utterance for n, table in enumerate(tables)},
    }


def _measure_curves(work: Path, name: str) -> Arrays:
    store = CurveStore.open(work / "deleted" / name)
    found = list(store)
    if not found:
        raise InputError(f"{store.path}: no utterance in this folder, expected at least one")
    return {
        "meta": np.array(json.dumps(store.meta)),
        "ids": np.array([curve.id for curve in found]),
        "languages": np.array([(curve.src_lang, curve.tgt_lang) for curve in found]),
        "references": np.array([curve.tgt_text for curve in found]),
        "percentages": found[0].percentages,
        "hypotheses": np.array([[step.hypothesis for step in curve.steps] for curve in found]),
    }


def _measure_pair(work: Path, one: str, other: str) -> Arrays:
    first, second = (AttributionStore.open(_stores(work) / name) for name in (one, other))
    found = [agreement(first, second, target, how) for target, how in COMPARED]
    return {
        "ids": np.array(found[0].ids),
        "utterance": found[0].utterance,
        "tokens": np.array(found[0].tokens),
        "other_hypotheses": np.array(found[0].other_hypotheses, dtype=np.str_),
        **{f"correlation_{number}": each.correlation for number, each in enumerate(found)},
    }


def _texts(array: NDArray[Any]) -> tuple[str, ...]:
    return tuple(str(text) for text in array)


def _pairs(array: NDArray[Any]) -> tuple[tuple[str, str], ...]:
    return tuple((str(source), str(target)) for source, target in array)


def _measure(job: tuple[Path, tuple[str, ...]]) -> str | None:
    """Measure a store, a folder or a pair; return what went wrong."""
    work, names = job
    try:
        if len(names) == 2:
            agreements(work, *names)
        elif names[0] in CURVES:
            curves(work, names[0])
        else:
            explained(work, names[0])
    except InputError as error:
        return str(error)
    return None


def main(argv: Sequence[str] | None = None) -> int:
    """Measure all that is there."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("work", metavar="WORK", type=Path, help="folder of explain.sh")
    parser.add_argument(
        "--processes", type=int, default=1, metavar="N", help="at a time (default: %(default)s)"
    )
    args = parser.parse_args(argv)
    jobs: list[tuple[str, ...]] = [
        *((name,) for name in EXPLAINED if (_stores(args.work) / name).is_dir()),
        *((name,) for name in CURVES if (args.work / "deleted" / name).is_dir()),
        *(pair for pair in PAIRS if all((_stores(args.work) / name).is_dir() for name in pair)),
    ]
    # Forked processes would share the locks of threads that they do not have.
    with ProcessPoolExecutor(args.processes, mp_context=get_context("spawn")) as pool:
        errors = [e for e in pool.map(_measure, [(args.work, names) for names in jobs]) if e]
    for error in errors:
        print(f"error: {error}", file=sys.stderr)
    n_bytes = sum(file.stat().st_size for file in (args.work / "measured").glob("*.npz"))
    print(f"{len(jobs) - len(errors)} measured, {n_bytes / 1e6:.1f} MB in {args.work / 'measured'}")
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
