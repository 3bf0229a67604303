"""Writing one utterance to a store, and what becomes of the run when that fails."""

from __future__ import annotations

import errno
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, NoReturn

from fbk_xattn.store.directory import Record, UtteranceStore
from fbk_xattn.tasks.accounting import Account

NO_SPACE = {errno.ENOSPC, errno.EDQUOT}
# Of one file: too large, or its name too long. Other files can be written.
OF_ONE_FILE = {errno.EFBIG, errno.ENAMETOOLONG}


def write(store: UtteranceStore[Record], record: Record, account: Account) -> bool:
    """Write an utterance; return whether that went well.

    Args:
        store: To write to.
        record: The utterance.
        account: That is told if this one cannot be written.

    Raises:
        SystemExit: It cannot be written, nor could the others (the disk is full, for example).
    """
    return _went_well(store, record.id, account, lambda: store.write(record))


class Writing(Generic[Record]):
    """Writes an utterance while the next one is computed: compressing takes a while.

    One is under way at most. It is in the account once it is collected, by the thread that calls
    these methods.
    """

    def __init__(self, store: UtteranceStore[Record], account: Account) -> None:
        """Take the store to write to, and the account that is told what became of each."""
        self._store, self._account = store, account
        self._thread = ThreadPoolExecutor(1, "fbk_xattn-store")
        self._under_way: tuple[str, float, Future[None]] | None = None

    def write(self, record: Record, seconds: float) -> None:
        """Begin to write an utterance that took ``seconds``, once the one before is written.

        Raises:
            SystemExit: As for :func:`write`, for the one before.
        """
        self.collect()
        self._under_way = record.id, seconds, self._thread.submit(self._store.write, record)

    def collect(self, *, wait: bool = True) -> None:
        """Put the utterance under way into the account, if there is one.

        Args:
            wait: Whether to wait for it; otherwise one that is not written yet stays under way.

        Raises:
            SystemExit: As for :func:`write`.
        """
        if self._under_way is None:
            return
        utterance_id, seconds, written = self._under_way
        if wait or written.done():
            self._under_way = None
            if _went_well(self._store, utterance_id, self._account, written.result):
                self._account.finish(utterance_id, seconds)


def _went_well(
    store: UtteranceStore[Record], utterance_id: str, account: Account, act: Callable[[], None]
) -> bool:
    try:
        act()
    except OSError as error:
        if error.errno not in OF_ONE_FILE:
            _abort(store, utterance_id, error, account)
        account.fail([utterance_id], error)
        return False
    except ValueError as error:  # InputError for its id, or an array that cannot be stored
        account.fail([utterance_id], error)
        return False
    return True


def _abort(
    store: UtteranceStore[Record], utterance_id: str, error: OSError, account: Account
) -> NoReturn:
    # Nobody wants a day of explanations that no file takes.
    cure = "free space" if error.errno in NO_SPACE else "make its folder writable"
    account.abort(
        f"{store.file(utterance_id)}: cannot be written ({error.strerror or error}); "
        f"{cure} and run the same command again, it goes on from what is stored"
    )
