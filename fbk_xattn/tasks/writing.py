"""Writing one utterance to a store, and what becomes of the run when that fails."""

from __future__ import annotations

import errno
from typing import NoReturn

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
    try:
        store.write(record)
    except OSError as error:
        if error.errno not in OF_ONE_FILE:
            _abort(store, record.id, error, account)
        account.fail([record.id], error)
        return False
    except ValueError as error:  # InputError for its id, or an array that cannot be stored
        account.fail([record.id], error)
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
