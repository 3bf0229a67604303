"""A GPU that failed for good: nothing more can be computed in this process."""

from __future__ import annotations

import logging
import os
import sys
from typing import NoReturn

import torch


def device_failure() -> str | None:
    """Return in one line why the GPU answers no more; ``None`` if it does or none is in use.

    An illegal memory access or an uncorrectable memory error, for example, spoils every later call
    of the process; running out of memory does not.
    """
    if not (torch.cuda.is_available() and torch.cuda.is_initialized()):
        return None
    try:
        torch.cuda.synchronize()
    except RuntimeError as error:
        return str(error).partition("\n")[0]
    return None


def exit_at_once(code: int) -> NoReturn:
    """End the process without freeing anything.

    Tensors on a lost GPU cannot be freed: an ordinary exit would be a SIGABRT with a stack of C++
    that buries what was logged.
    """
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
