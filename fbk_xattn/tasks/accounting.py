"""Every utterance is accounted for at the end: explained, already there, failed or left."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NoReturn

from fbk_xattn.errors import InputError
from fbk_xattn.tasks.lost_device import device_failure, exit_at_once
from fbk_xattn.tasks.progress import ProgressLog
from fbk_xattn.tasks.stopping import EXIT_STOPPED, StopSignals

logger = logging.getLogger(__name__)


@dataclass
class Account:
    """What became of the utterances of this process, and how its run ends.

    Attributes:
        log: Where progress goes.
        signals: That end the run after the utterance at hand.
        costs: Id of each utterance of this process to the work that it takes, in any unit.
        decoded: Ids that were decoded (and explained, if asked for) in this run.
        present: Ids whose results were in the store already.
        failures: Id to reason.
        started: Time of the monotonic clock from which on utterances were worked on.
    """

    log: ProgressLog = field(default_factory=ProgressLog)
    signals: StopSignals = field(default_factory=StopSignals)
    costs: dict[str, float] = field(default_factory=dict)
    decoded: list[str] = field(default_factory=list)
    present: list[str] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)

    @property
    def total(self) -> int:
        """Utterances that fall to this process."""
        return len(self.costs)

    @property
    def left(self) -> list[str]:
        """Ids without an outcome."""
        settled = {*self.decoded, *self.present, *self.failures}
        return [utterance_id for utterance_id in self.costs if utterance_id not in settled]

    def is_own(self, utterance_id: str) -> bool:
        """Tell whether an utterance falls to this process; before shares are dealt, each does."""
        return not self.costs or utterance_id in self.costs

    def seconds_left(self) -> float | None:
        """Return the time left at the pace so far, ``None`` before the first utterance.

        The pace is one of work: short utterances are done sooner than long ones.
        """
        work = sum(self.costs.get(utterance_id, 0.0) for utterance_id in self.decoded)
        if not work:
            return None
        ahead = sum(self.costs[utterance_id] for utterance_id in self.left)
        return (time.monotonic() - self.started) * ahead / work

    def finish(self, utterance_id: str, seconds: float) -> None:
        """Note an utterance that was decoded, explained and stored in ``seconds``."""
        self.decoded.append(utterance_id)
        seconds_left = self.seconds_left()
        self.log(
            "utterance",
            "stored {utterance!r}: {done} of {total} utterances"
            + ("" if seconds_left is None else ", about {seconds_left:.0f} s left"),
            utterance=utterance_id,
            done=self.total - len(self.left),
            total=self.total,
            seconds=seconds,
            seconds_left=seconds_left,
        )

    def fail(
        self, utterance_ids: Iterable[str], error: Exception, reason: str | None = None
    ) -> None:
        """Note utterances that failed together, and log the traceback.

        With a GPU that is lost the process ends here (exit code 1): all others would fail too, and
        are left for the next run. Writing must have ended.

        Args:
            utterance_ids: Theirs.
            error: That stopped them.
            reason: What to report instead of the error's own words.

        Raises:
            SystemExit: A signal asked to stop. It may have gone to the processes that load data
                too and so be the cause: the utterances are left for the next run.
        """
        self.stop_if_asked()
        failed = list(utterance_ids)
        logger.error("failed: %s", ", ".join(map(repr, failed)), exc_info=error)
        self.failures.update(dict.fromkeys(failed, reason or failure_reason(error)))
        lost = device_failure()
        if lost is not None:
            self._log_end("aborted")
            logger.error(
                "fbk_xattn: error: the GPU failed and answers no more (%s), %d of %d utterances "
                "are not done; run the same command again, it goes on from what is stored",
                lost,
                len(self.left) + len(self.failures),
                self.total,
            )
            exit_at_once(1)

    def stop_if_asked(self) -> None:
        """End the run if a signal asked for it.

        Raises:
            SystemExit: It did (exit code :data:`~fbk_xattn.tasks.stopping.EXIT_STOPPED`).
        """
        if self.signals.received is None:
            return
        self._log_end("stopped")
        logger.warning(
            "stopped by %s: %d of %d utterances left; run the same command again to go on",
            self.signals.received.name,
            len(self.left),
            self.total,
        )
        raise SystemExit(EXIT_STOPPED)

    def abort(self, reason: str) -> NoReturn:
        """End the run, as what is left would fail like this.

        Raises:
            SystemExit: With ``reason`` in one line (exit code 1).
        """
        self._log_end("aborted")
        raise SystemExit(
            f"fbk_xattn: error: {reason} ({len(self.left)} of {self.total} utterances left)"
        )

    def close(self) -> None:
        """Log the outcome.

        Raises:
            SystemExit: Some utterance failed (with one line that says so, exit code 1), or this
                process had none (exit code 0; fairseq's summary would divide by zero).
        """
        self._log_end("failed" if self.failures else "done")
        if self.failures:
            first, reason = next(iter(self.failures.items()))
            raise SystemExit(
                f"fbk_xattn: error: {len(self.failures)} of {self.total} utterances failed, "
                f"first {first!r}: {reason}"
            )
        if not self.decoded and not self.present:
            logger.info("no utterance for this process")
            raise SystemExit(0)

    def _log_end(self, outcome: str) -> None:
        self.log(
            "end",
            "{total} utterances: {decoded} decoded, {present} already there, {failed} failed, "
            "{left} left",
            outcome=outcome,
            total=self.total,
            decoded=len(self.decoded),
            present=len(self.present),
            failed=len(self.failures),
            left=len(self.left),
            failures=self.failures,
        )
        for utterance_id, reason in self.failures.items():
            logger.error("failed: utterance %r: %s", utterance_id, reason)


def failure_reason(error: Exception) -> str:
    """Return one line that says what went wrong."""
    text = " ".join(str(error).split())
    if isinstance(error, InputError):
        return text
    return ": ".join(filter(None, (type(error).__name__, text)))
