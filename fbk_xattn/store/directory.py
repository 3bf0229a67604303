"""The attribution store: a directory that many processes write and anybody reads."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator, Mapping
from hashlib import blake2b
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import quote, unquote

import numpy as np

from fbk_xattn.errors import InputError
from fbk_xattn.store.attribution import Attribution
from fbk_xattn.store.serialization import from_arrays, to_arrays

FORMAT_VERSION = 1
META = "meta.json"
SUFFIX = ".npz"
LONGEST_NAME = 200


class AttributionStore:
    """A directory with ``meta.json`` and one ``.npz`` an utterance.

    Files are written under a temporary name and renamed, so a killed process leaves only whole
    ones, and any number of processes share a store without locks as long as no two of them
    explain the same utterance. Reading needs numpy alone.

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

    def __init__(self, path: Path, meta: Mapping[str, Any]) -> None:
        """Use :meth:`open` or :meth:`create`."""
        self.path = path
        self.meta = meta

    @classmethod
    def open(cls, path: Path | str) -> AttributionStore:
        """Open a store for reading.

        Raises:
            InputError: ``path`` is not a store, or one of another format version.
        """
        path = Path(path)
        file = path / META
        if not file.is_file():
            raise InputError(f"{path}: not an attribution store, expected a folder with {META}")
        try:
            meta = json.loads(file.read_text(encoding="utf-8"))
            version = meta["format_version"]
            if version == FORMAT_VERSION and not isinstance(meta["parameters"], dict):
                raise TypeError("parameters are no mapping")
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{file}: unreadable ({error}), expected the JSON of an attribution store"
            ) from None
        if version != FORMAT_VERSION:
            raise InputError(f"{file}: format version {version}, expected {FORMAT_VERSION}")
        return cls(path, meta)

    @classmethod
    def create(
        cls,
        path: Path | str,
        parameters: Mapping[str, Any],
        provenance: Mapping[str, Any] | None = None,
    ) -> AttributionStore:
        """Create a store, or open the one that is there for going on with it.

        Args:
            path: Directory to create or to go on with.
            parameters: What the numbers depend on (JSON values). A store made with other
                parameters is refused.
            provenance: What else a reader may want to know (versions, command line). The first
                process to come writes it.

        Raises:
            InputError: The store there has other parameters, or the directory cannot be written.
        """
        path = Path(path)
        meta = {
            "format_version": FORMAT_VERSION,
            "parameters": dict(parameters),
            "provenance": dict(provenance or {}),
        }
        text = json.dumps(meta, indent=2, ensure_ascii=False, sort_keys=True) + "\n"
        try:
            path.mkdir(parents=True, exist_ok=True)
            _write_if_absent(path / META, text)
        except OSError as error:
            raise InputError(
                f"{path}: cannot write there ({error.strerror}), expected a writable folder"
            ) from None
        store = cls.open(path)
        theirs, ours = store.meta["parameters"], json.loads(text)["parameters"]
        for name in sorted({*theirs, *ours}):
            if theirs.get(name) != ours.get(name):
                raise InputError(
                    f"{path}: the store has {name} = {theirs.get(name)}, this run has "
                    f"{ours.get(name)}; expected the same parameters or another folder"
                )
        store._remove_leftovers()
        return store

    def __enter__(self) -> AttributionStore:
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

    def __iter__(self) -> Iterator[Attribution]:
        """Yield the attributions, sorted by id, one in memory at a time."""
        for utterance_id in self.ids():
            yield self.read(utterance_id)

    def file(self, utterance_id: str) -> Path:
        """Return the file of an utterance, there or not.

        Raises:
            InputError: The id is too long for a file name.
        """
        name = quote(utterance_id, safe=" ")
        # A leading dot would hide the file among the temporary ones.
        name = "%2E" + name[1:] if name.startswith(".") else name
        if not name or len(name) > LONGEST_NAME:
            raise InputError(
                f"utterance id {utterance_id!r}: expected 1 to {LONGEST_NAME} characters "
                "(percent-encoded), as it names a file"
            )
        return self.path / f"{name}{SUFFIX}"

    def read(self, utterance_id: str) -> Attribution:
        """Read one utterance.

        Raises:
            InputError: It is not in the store, or its file is damaged.
        """
        file = self.file(utterance_id)
        if not file.is_file():
            raise InputError(f"{self.path}: no utterance {utterance_id!r} among its {len(self)}")
        try:
            with file.open("rb") as handle, np.load(handle, allow_pickle=False) as arrays:
                return from_arrays({name: arrays[name] for name in arrays.files})
        except Exception as error:  # zipfile, zlib and numpy raise many kinds for a damaged file
            raise InputError(
                f"{file}: unreadable ({error}); delete it and run again to replace it"
            ) from None

    def write(self, attribution: Attribution) -> None:
        """Write one utterance, all of it or nothing.

        Raises:
            OSError: The file could not be written (for example, the disk is full).
        """
        file = self.file(attribution.id)
        mark = _mark(file)
        temporary = file.with_name(f".{mark}.{socket.gethostname()}.{os.getpid()}.tmp")
        try:
            with temporary.open("wb") as handle:
                np.savez_compressed(handle, allow_pickle=False, **to_arrays(attribution))
                handle.flush()
                os.fsync(handle.fileno())
            temporary.replace(file)
        finally:
            temporary.unlink(missing_ok=True)
        for leftover in self.path.glob(f".{mark}.*.tmp"):
            leftover.unlink(missing_ok=True)  # of a process that was killed while it wrote

    def _remove_leftovers(self) -> None:
        """Remove temporary files of utterances that are there: nobody is writing those any more.

        A process that was killed right after a rename leaves what an earlier one had left.
        """
        marks = {_mark(file) for file in self.path.glob(f"[!.]*{SUFFIX}")}
        for leftover in self.path.glob(".*.tmp"):
            if leftover.name.split(".")[1] in marks:
                leftover.unlink(missing_ok=True)


def _mark(file: Path) -> str:
    """Return how the names of a file's temporary files begin, after a dot.

    Of one length for all ids: short enough on any host, and no beginning of another's.
    """
    return blake2b(file.name.encode(), digest_size=16).hexdigest()


def _write_if_absent(file: Path, text: str) -> None:
    """Create ``file`` with all of ``text``, unless it is there, whoever else is trying to."""
    temporary = file.with_name(f".{file.name}.{socket.gethostname()}.{os.getpid()}.tmp")
    try:
        if not file.exists():
            temporary.write_text(text, encoding="utf-8")
            _link(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)
    for leftover in file.parent.glob(f".{file.name}.*.tmp"):
        leftover.unlink(missing_ok=True)  # of a process that was killed while it wrote


def _link(temporary: Path, file: Path) -> None:
    """Give a whole temporary file its name, unless another process was first."""
    try:
        os.link(temporary, file)  # unlike a rename, fails when the name is taken
    except OSError:
        # Taken (and this temporary file perhaps removed as a leftover), or no hard links here.
        if not file.exists():
            temporary.replace(file)
