"""The one exception for input that a user can correct, and how it is shown."""

from __future__ import annotations

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

    Called by the entry points of fairseq's commands (``Task.setup_task``), whose ``main`` would
    print a traceback through fairseq for a mistyped flag. Other exceptions keep their traceback.
    """
    previous = sys.excepthook
    if getattr(previous, "shows_input_errors", False):
        return

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if isinstance(error, InputError):
            print(f"fbk_xattn: error: {error}", file=sys.stderr)
        else:
            previous(kind, error, trace)

    hook.shows_input_errors = True  # type: ignore[attr-defined]
    sys.excepthook = hook
