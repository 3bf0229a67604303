"""Every utterance is accounted for at the end: explained, already there, or failed."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from fairseq.data.iterators import EpochBatchIterating

logger = logging.getLogger(__name__)


@dataclass
class Account:
    """What became of the utterances of this process.

    Attributes:
        total: Utterances that fall to this process.
        decoded: Ids that were decoded (and explained, if asked for) in this run.
        present: Ids whose results were in the store already.
        failures: Id to reason.
    """

    total: int = 0
    decoded: list[str] = field(default_factory=list)
    present: list[str] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)

    @property
    def done(self) -> int:
        """Utterances with an outcome."""
        return len(self.decoded) + len(self.present) + len(self.failures)

    def seconds_left(self) -> float:
        """Return the time left at the pace so far, inf before the first utterance."""
        if not self.decoded:
            return float("inf")
        pace = (time.monotonic() - self.started) / len(self.decoded)
        return pace * (self.total - self.done)

    def close(self) -> None:
        """Log the outcome.

        Raises:
            SystemExit: Some utterance failed (with one line that says so, exit code 1), or this
                process had none (exit code 0; fairseq's summary would divide by zero).
        """
        logger.info(
            "%d utterances: %d decoded, %d already there, %d failed",
            self.total,
            len(self.decoded),
            len(self.present),
            len(self.failures),
        )
        for utterance_id, reason in self.failures.items():
            logger.error("failed: utterance %r: %s", utterance_id, reason)
        if self.failures:
            first, reason = next(iter(self.failures.items()))
            raise SystemExit(
                f"fbk_xattn: error: {len(self.failures)} of {self.total} utterances failed, "
                f"first {first!r}: {reason}"
            )
        if not self.done:
            logger.info("no utterance for this process")
            raise SystemExit(0)


class AccountedIterator:
    """fairseq's epoch iterator, whose batches settle an :class:`Account`."""

    def __init__(self, iterator: EpochBatchIterating, account: Account) -> None:
        """Wrap ``iterator``."""
        self._iterator = iterator
        self._account = account

    def __getattr__(self, name: str) -> Any:
        """Leave everything else to fairseq's iterator."""
        return getattr(self._iterator, name)

    def next_epoch_itr(self, **kwargs: Any) -> AccountedBatches:
        """Return the batches of one pass."""
        return AccountedBatches(self._iterator.next_epoch_itr(**kwargs), self._account)


class AccountedBatches:
    """Batches of one pass; notes utterances that could not be loaded and closes the account."""

    def __init__(self, batches: Any, account: Account) -> None:
        """Wrap fairseq's ``batches``."""
        self._batches = batches
        self._account = account
        self.n = getattr(batches, "n", 0)

    def __len__(self) -> int:
        """Return the number of batches."""
        return len(self._batches)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield the batches, then close the account."""
        for batch in self._batches:
            self._account.failures.update(batch.pop("failures", {}))
            yield batch
        self._account.close()
