"""Signals that ask a run to end after the utterance at hand."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

# EX_TEMPFAIL of sysexits.h: nothing failed, the same command goes on from here.
EXIT_STOPPED = 75
# What schedulers send ahead of a time limit or a preemption.
STOPPING = (signal.SIGUSR1, signal.SIGTERM)


class Stopped(BaseException):
    """A signal came while nothing was at hand. No ``except Exception`` takes it for a failure."""


class StopSignals:
    """Remembers that a signal asked to stop; others decide when to look.

    Attributes:
        received: The first signal that came, or ``None``.
    """

    def __init__(self, signals: tuple[signal.Signals, ...] = ()) -> None:
        """Take the signals to listen to, by default none."""
        self._signals = signals
        self._waiting: int | None = None  # process that waits, if one does
        self.received: signal.Signals | None = None

    @property
    def listened_to(self) -> bool:
        """Whether there are any: those of a run that the same command goes on with."""
        return bool(self._signals)

    @contextmanager
    def caught(self) -> Iterator[None]:
        """Catch the signals while in the context.

        Only a program's main thread can; in others they keep their effect.
        """
        is_main = threading.current_thread() is threading.main_thread()
        previous = {s: signal.signal(s, self._remember) for s in self._signals if is_main}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    @contextmanager
    def obeyed(self) -> Iterator[None]:
        """Let a signal end the context at once: it waits, perhaps for ever, for nothing to keep.

        Raises:
            Stopped: One came.
        """
        # A process that is forked meanwhile has the handlers, but does not wait.
        self._waiting = os.getpid()
        try:
            yield
        finally:
            self._waiting = None

    def _remember(self, number: int, _: FrameType | None) -> None:
        # Nothing else while there is work: it may have interrupted the logger or a write.
        self.received = self.received or signal.Signals(number)
        if self._waiting == os.getpid():
            raise Stopped
