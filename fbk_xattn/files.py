"""Output files that are there whole or not at all; arrays read by one thread at a time."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import blake2b
from pathlib import Path

from fbk_xattn.errors import InputError

# numpy parses the header of an array as Python, which in CPython before 3.11.9 and 3.12.3 can fail
# where two threads do so at a time (its issue 106905): "AST constructor recursion depth mismatch".
_READING = threading.RLock()
# A process that was forked while another thread was reading would wait for that thread for ever.
os.register_at_fork(
    before=_READING.acquire, after_in_parent=_READING.release, after_in_child=_READING.release
)


@contextmanager
def reading_arrays() -> Iterator[None]:
    """Keep other threads from reading ``.npy`` and ``.npz`` files meanwhile."""
    with _READING:
        yield


def temporary_mark(file: Path) -> str:
    """Return how the names of a file's temporary files begin, after a dot.

    Of one length for all names: short enough on any host, and no beginning of another's.
    """
    return blake2b(file.name.encode(), digest_size=16).hexdigest()


def temporary_file(file: Path) -> Path:
    """Return where this process writes what becomes ``file``."""
    mark = temporary_mark(file)
    return file.with_name(f".{mark}.{socket.gethostname()}.{os.getpid()}.tmp")


def _remove_leftovers(file: Path) -> None:
    """Remove temporary files of processes that were killed on this host while they wrote."""
    for leftover in file.parent.glob(f".{temporary_mark(file)}.{socket.gethostname()}.*.tmp"):
        pid = leftover.name.split(".")[-2]
        if pid.isdecimal() and not _runs(int(pid)):
            with suppress(OSError):
                leftover.unlink()


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # somebody else's
        return True
    return True


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a temporary file beside ``path`` that becomes ``path`` if the block succeeds.

    Where ``path`` is a symbolic link, what it points at is written. The folder is created where it
    is missing. Whatever was there stays until the new file is complete, and stays for good if the
    block raises.

    Raises:
        InputError: ``path`` is a folder, a device or a pipe, or cannot be written.
    """
    target = Path(os.path.realpath(path))
    temporary = temporary_file(target)
    try:
        if path.is_dir():
            raise InputError(f"{path}: is a folder, expected the name of a file")
        if path.exists() and not path.is_file():
            raise InputError(f"{path}: is no regular file, expected the name of a file")
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(target)
        yield temporary
        temporary.replace(target)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written ({error.strerror or error}), expected a writable place"
        ) from None
    finally:
        with suppress(OSError):  # not there, which is how it should be, or beyond reach
            temporary.unlink()


def write_text(path: Path, text: str) -> None:
    """Write ``text`` in UTF-8, all of it or nothing.

    Raises:
        InputError: ``path`` cannot be written.
    """
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
