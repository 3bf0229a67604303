"""How far a run is: sentences for people, JSON for programs (``--log-format json``)."""

from __future__ import annotations

import json
import logging
import time
from typing import Any

# The name in front of each line of fairseq's log, by which programs find the objects.
logger = logging.getLogger("fbk_xattn.progress")

LOG_SECONDS = 10.0


class ProgressLog:
    """Writes events to the log.

    With ``--log-format json`` the message of each line is one JSON object with ``event``, ``shard``
    (number of this process, from 0) and the event's own keys; times are in seconds, ``null`` where
    unknown:

    - ``masks``, every ten seconds: ``utterance``, ``target``, ``done``, ``total`` (masks),
      ``masks_per_s``, ``seconds_left`` (for these masks);
    - ``utterance``, when one is stored: ``utterance``, ``done``, ``total`` (utterances of this
      process), ``seconds`` (that its explanation took), ``seconds_left`` (for all that is left);
    - ``end``, once: ``outcome`` (``done``, ``failed``, ``stopped`` by a signal, or ``aborted``),
      ``total``, ``decoded``, ``present``, ``failed``, ``left``, ``failures`` (id to reason).
    """

    def __init__(self, log_format: str | None = None, shard: int = 0) -> None:
        """Take fairseq's ``--log-format`` and the number of this process."""
        self._as_json = log_format == "json"
        self._shard = shard

    def __call__(self, event: str, sentence: str, **values: Any) -> None:
        """Log an event.

        Args:
            event: Its name.
            sentence: For people; its ``{placeholders}`` are names of values.
            **values: JSON values.
        """
        if self._as_json:
            logger.info(json.dumps({"event": event, "shard": self._shard, **values}))
        else:
            logger.info(sentence.format(**values))


class MaskProgress:
    """Logs how far the masks of one utterance are, every few seconds."""

    def __init__(self, log: ProgressLog, utterance_id: str, target: str, n_masks: int) -> None:
        """Start the clock."""
        self._log = log
        self._what = {"utterance": utterance_id, "target": target}
        self._n_masks = n_masks
        self._done = 0
        self._started = self._logged = time.monotonic()

    def __call__(self, n: int) -> None:
        """Count ``n`` masks more."""
        self._done += n
        now = time.monotonic()
        if now - self._logged < LOG_SECONDS:
            return
        self._logged = now
        rate = self._done / (now - self._started)
        self._log(
            "masks",
            "{target} of {utterance!r}: {done} of {total} masks, {masks_per_s:.1f} masks/s, "
            "{seconds_left:.0f} s left",
            **self._what,
            done=self._done,
            total=self._n_masks,
            masks_per_s=rate,
            seconds_left=(self._n_masks - self._done) / rate,
        )
