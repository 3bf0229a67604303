"""The one exception for input that a user can correct, and how it is shown."""

from __future__ import annotations

import os
import sys
from types import TracebackType


class InputError(ValueError):
    """Something the user gave is wrong: a flag, a file or a row of one.

    The message is one line that names the culprit and what was expected, for example
    ``test.tsv, row 3 (utterance 'a'): n_frames is 'x', expected a whole number of frames``.
    """

    def __init__(self, message: str) -> None:
        """Keep ``message`` on one line, whatever it quotes."""
        super().__init__(" ".join(message.split()))


def show_input_errors_in_one_line() -> None:
    """Make an uncaught :class:`InputError` print its message alone, and exit with 1.

    So do standard output that cannot be written, and Ctrl-C, whose exit code is 130.

    Called by the entry points of fairseq's commands (``Task.setup_task``), whose ``main`` would
    print a traceback through fairseq for a mistyped flag. Other exceptions keep their traceback.
    """
    previous = sys.excepthook
    if getattr(previous, "shows_input_errors", False):
        return

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if isinstance(error, InputError):
            print(f"fbk_xattn: error: {error}", file=sys.stderr)
        elif isinstance(error, KeyboardInterrupt):
            print(
                "fbk_xattn: interrupted; the same command goes on from what is stored",
                file=sys.stderr,
            )
            raise SystemExit(130)  # the interpreter takes the exit code from here
        elif isinstance(error, OSError) and error.filename is None and _output_fails():
            print(
                f"fbk_xattn: error: standard output: cannot be written ({error.strerror or error}),"
                " expected a writable place",
                file=sys.stderr,
            )
        else:
            previous(kind, error, trace)

    hook.shows_input_errors = True  # type: ignore[attr-defined]
    sys.excepthook = hook


def _output_fails() -> bool:
    """Tell whether standard output cannot be written; what it still holds is lost then."""
    try:
        # An empty line: flushing alone tells nothing where what could not be written is gone.
        print(flush=True)
    except OSError:
        # The interpreter flushes once more, at its exit, and would complain.
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
        return True
    return False
