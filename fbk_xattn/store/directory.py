"""Stores: directories with one file an utterance, which many processes write and anybody reads."""

from __future__ import annotations

import json
import os
import socket
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar
from urllib.parse import quote, unquote

import numpy as np
from numpy.typing import NDArray

from fbk_xattn.errors import InputError
from fbk_xattn.files import reading_arrays, temporary_file, temporary_mark
from fbk_xattn.store.attribution import Attribution, FloatArray
from fbk_xattn.store.serialization import TEXTS, from_arrays, to_arrays

FORMAT_VERSION = 1
META = "meta.json"
SUFFIX = ".npz"
# The first array of a file: the names of all others, so that none can be missing unnoticed.
NAMES = "arrays"
LONGEST_NAME = 200
# What users call a store of each kind.
KINDS = {
    None: "an attribution store",
    "curves": "a folder of fairseq-generate --deletion or --insertion",
}


def file_name(utterance_id: str) -> str:
    """Return the name of an utterance's file, without its suffix.

    Raises:
        InputError: The id is too long for one.
    """
    name = quote(utterance_id, safe=" ")
    # A leading dot would hide the file among the temporary ones.
    name = "%2E" + name[1:] if name.startswith(".") else name
    if not name or len(name) > LONGEST_NAME:
        raise InputError(
            f"utterance id {utterance_id!r}: expected 1 to {LONGEST_NAME} characters "
            "(percent-encoded), as it names a file"
        )
    return name


class _Record(Protocol):
    """What a store holds of one utterance."""

    @property
    def id(self) -> str:
        """Utterance id of the manifest."""


Record = TypeVar("Record", bound=_Record)


class UtteranceStore(ABC, Generic[Record]):
    """A directory with ``meta.json`` and one ``.npz`` an utterance.

    Files are written under a temporary name and renamed, so a killed process leaves only whole
    ones, and any number of processes share a store without locks. Two that work on the same
    utterance waste time, no more. Reading needs numpy alone.

    Subclasses say what a file holds; ``KIND`` is their mark in ``meta.json`` (none in attribution
    stores, which were there first), a key of :data:`KINDS`.
    """

    KIND: ClassVar[str | None]

    def __init__(self, path: Path, meta: Mapping[str, Any]) -> None:
        """Use :meth:`open` or :meth:`create`."""
        self.path = path
        self.meta = meta

    @classmethod
    def open(cls, path: Path | str) -> Self:
        """Open a store for reading.

        Raises:
            InputError: ``path`` is not a store, or one of another kind or format version.
        """
        path = Path(path)
        file = path / META
        if not file.is_file():
            raise InputError(f"{path}: not {KINDS[cls.KIND]}, expected a folder with {META}")
        try:
            meta = json.loads(file.read_text(encoding="utf-8"))
            version = meta["format_version"]
            if version == FORMAT_VERSION and not isinstance(meta["parameters"], dict):
                raise TypeError("parameters are no mapping")
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{file}: unreadable ({error}), expected the JSON of {KINDS[cls.KIND]}"
            ) from None
        if version != FORMAT_VERSION:
            raise InputError(f"{file}: format version {version}, expected {FORMAT_VERSION}")
        if (kind := meta.get("kind")) != cls.KIND:
            found = KINDS[kind] if kind in tuple(KINDS) else f"a store of kind {kind!r}"
            raise InputError(f"{path}: is {found}, expected {KINDS[cls.KIND]}")
        return cls(path, meta)

    @classmethod
    def create(
        cls,
        path: Path | str,
        parameters: Mapping[str, Any],
        provenance: Mapping[str, Any] | None = None,
    ) -> Self:
        """Create a store, or open the one that is there for going on with it.

        Args:
            path: Directory to create or to go on with.
            parameters: What the numbers depend on (JSON values). A store made with other
                parameters is refused.
            provenance: What else a reader may want to know (versions, command line). The first
                process to come writes it.

        Raises:
            InputError: The store there has other parameters or no ``meta.json``, or the directory
                cannot be written.
        """
        path = Path(path)
        meta = {
            "format_version": FORMAT_VERSION,
            "parameters": dict(parameters),
            "provenance": dict(provenance or {}),
        }
        if cls.KIND is not None:
            meta["kind"] = cls.KIND
        text = json.dumps(meta, indent=2, ensure_ascii=False, sort_keys=True) + "\n"
        # In this order: a process that is just starting writes meta.json before any other file.
        if any(path.glob(f"[!.]*{SUFFIX}")) and not (path / META).exists():
            raise InputError(
                f"{path}: has {SUFFIX} files but no {META}, which says what they were made with; "
                "expected both, or another folder"
            )
        try:
            path.mkdir(parents=True, exist_ok=True)
            _write_if_absent(path / META, text)
        except OSError as error:
            raise InputError(
                f"{path}: cannot write there ({error.strerror}), expected a writable folder"
            ) from None
        store = cls.open(path)
        theirs, ours = store.meta["parameters"], json.loads(text)["parameters"]
        # Those that both have first: another --explain brings or takes parameters of its own.
        for name in (*sorted(theirs.keys() & ours), *sorted(theirs.keys() ^ ours)):
            if theirs.get(name) != ours.get(name):
                # Another process may just be starting, so nothing is deleted here.
                advice = (
                    f", or {path / META} deleted (the folder holds no utterance)"
                    if not len(store)
                    else ""
                )
                raise InputError(
                    f"{path}: the store has {name} = {theirs.get(name)}, this run has "
                    f"{ours.get(name)}; expected the same parameters or another folder{advice}"
                )
        store._remove_leftovers()
        return store

    def __enter__(self) -> Self:
        """Return the store; it holds no handle between calls."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Do nothing: every file is whole as soon as it is there."""

    def ids(self) -> list[str]:
        """Return the ids of the utterances that are there, sorted."""
        return sorted(
            unquote(file.name.removesuffix(SUFFIX)) for file in self.path.glob(f"[!.]*{SUFFIX}")
        )

    def __len__(self) -> int:
        """Return the number of utterances."""
        return len(self.ids())

    def __contains__(self, utterance_id: str) -> bool:
        """Tell whether the utterance has been written."""
        return self.file(utterance_id).is_file()

    def __iter__(self) -> Iterator[Record]:
        """Yield the utterances, sorted by id, one in memory at a time."""
        for utterance_id in self.ids():
            yield self.read(utterance_id)

    def file(self, utterance_id: str) -> Path:
        """Return the file of an utterance, there or not.

        Raises:
            InputError: The id is too long for a file name.
        """
        return self.path / f"{file_name(utterance_id)}{SUFFIX}"

    def read(self, utterance_id: str) -> Record:
        """Read one utterance.

        Raises:
            InputError: It is not in the store, or its file is damaged.
        """
        return self._load(utterance_id, None)

    def _load(self, utterance_id: str, names: Sequence[str] | None) -> Any:
        """Return the record of an utterance, or, given ``names``, these arrays alone."""
        file = self.file(utterance_id)
        if not file.is_file():
            raise InputError(f"{self.path}: no utterance {utterance_id!r} among its {len(self)}")
        try:
            with (
                reading_arrays(),
                file.open("rb") as handle,
                np.load(handle, allow_pickle=False) as arrays,
            ):
                read = {name: arrays[name] for name in names or arrays.files}
                if names is not None:
                    return read
                # Files of earlier versions have no names.
                expected = read.pop(NAMES, np.array(list(read)))
                if {*expected.tolist()} != read.keys():
                    raise ValueError("it has not all the arrays that were written")
                return self._from_arrays(read)
        except Exception as error:  # zipfile, zlib and numpy raise many kinds for a damaged file
            raise InputError(
                f"{file}: unreadable ({error}); delete it and run again to replace it"
            ) from None

    @staticmethod
    @abstractmethod
    def _to_arrays(record: Record) -> Mapping[str, NDArray[Any]]:
        """Return what the file of an utterance holds: arrays without Python objects."""

    @staticmethod
    @abstractmethod
    def _from_arrays(arrays: Mapping[str, NDArray[Any]]) -> Record:
        """Rebuild the record of :meth:`_to_arrays`."""

    def write(self, record: Record) -> None:
        """Write one utterance, all of it or nothing.

        Raises:
            OSError: The file could not be written (for example, the disk is full).
        """
        file = self.file(record.id)
        temporary = temporary_file(file)
        try:
            with temporary.open("wb") as handle:
                arrays = self._to_arrays(record)
                named = {NAMES: np.array(list(arrays)), **arrays}
                np.savez_compressed(handle, allow_pickle=False, **named)
                handle.flush()
                os.fsync(handle.fileno())
            try:
                temporary.replace(file)
            except FileNotFoundError:
                # A process that wrote the same utterance took ours for a leftover.
                if not file.is_file():
                    raise
        finally:
            temporary.unlink(missing_ok=True)
        for leftover in self.path.glob(f".{temporary_mark(file)}.*.tmp"):
            leftover.unlink(missing_ok=True)  # of a process that was killed while it wrote

    def _remove_leftovers(self) -> None:
        """Remove temporary files of utterances that are there: nobody is writing those any more.

        A process that was killed right after a rename leaves what an earlier one had left.
        """
        marks = {temporary_mark(file) for file in self.path.glob(f"[!.]*{SUFFIX}")}
        for leftover in self.path.glob(".*.tmp"):
            if leftover.name.split(".")[1] in marks:
                _remove(leftover)


class AttributionStore(UtteranceStore[Attribution]):
    """The store of explanations: one :class:`Attribution` an utterance.

    Example:
        >>> import tempfile, numpy as np
        >>> from fbk_xattn.store import Attribution, AttributionStore
        >>> path = tempfile.mkdtemp()
        >>> hello = Attribution(
        ...     id="a/1", speaker="s", src_lang="en", tgt_lang="en", src_text="hi", tgt_text="hi",
        ...     hypothesis="hi", tokens=("<lang:en>", "_hi", "</s>"), token_ids=np.arange(3),
        ...     positional_scores=np.zeros(3), score=0.0, n_prefix=1, frames_per_step=4,
        ...     fbank=np.zeros((8, 80)))
        >>> with AttributionStore.create(path, parameters={"num_masks": 10}) as store:
        ...     store.write(hello)
        >>> with AttributionStore.open(path) as store:
        ...     print(store.ids(), store.read("a/1").tokens)
        ['a/1'] ('<lang:en>', '_hi', '</s>')
    """

    KIND = None

    @staticmethod
    def _to_arrays(record: Attribution) -> Mapping[str, NDArray[Any]]:
        return to_arrays(record)

    @staticmethod
    def _from_arrays(arrays: Mapping[str, NDArray[Any]]) -> Attribution:
        return from_arrays(arrays)

    def texts(self, utterance_id: str) -> dict[str, str]:
        """Read the texts of one utterance without its maps.

        Returns:
            The attributes of :class:`Attribution` that are texts, by name.

        Raises:
            InputError: It is not in the store, or its file is damaged.
        """
        return {name: str(text) for name, text in self._load(utterance_id, TEXTS).items()}

    def fbank(self, utterance_id: str) -> FloatArray:
        """Read the features ``(T, F)`` of one utterance without its maps.

        Raises:
            InputError: It is not in the store, or its file is damaged.
        """
        fbank: FloatArray = self._load(utterance_id, ("fbank",))["fbank"]
        return fbank


def _write_if_absent(file: Path, text: str) -> None:
    """Create ``file`` with all of ``text``, unless it is there, whoever else is trying to."""
    if not file.exists():
        temporary = file.with_name(f".{file.name}.{socket.gethostname()}.{os.getpid()}.tmp")
        try:
            temporary.write_text(text, encoding="utf-8")
            _link(temporary, file)
        finally:
            temporary.unlink(missing_ok=True)
    for leftover in file.parent.glob(f".{file.name}.*.tmp"):
        _remove(leftover)  # of a process that was killed while it wrote


def _remove(leftover: Path) -> None:
    """Remove a file that does no harm where it cannot be removed (a read-only file system)."""
    with suppress(OSError):
        leftover.unlink()


def _link(temporary: Path, file: Path) -> None:
    """Give a whole temporary file its name, unless another process was first."""
    try:
        os.link(temporary, file)  # unlike a rename, fails when the name is taken
    except OSError:
        # Taken (and this temporary file perhaps removed as a leftover), or no hard links here.
        if not file.exists():
            temporary.replace(file)
