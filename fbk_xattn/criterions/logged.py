"""What the criterions log beyond fairseq's own values."""

from __future__ import annotations

import logging
import math
from typing import Any

from fairseq.logging import metrics

logger = logging.getLogger(__name__)

_warned: set[str] = set()


def log_parts(logging_outputs: list[dict[str, Any]], names: tuple[str, ...]) -> None:
    """Log summed losses in bits a token (``sample_size``), those that were computed."""
    sample_size = sum(log.get("sample_size", 0) for log in logging_outputs)
    for name in names:
        if any(name in log for log in logging_outputs):
            total = sum(log.get(name, 0) for log in logging_outputs)
            metrics.log_scalar(name, total / sample_size / math.log(2), sample_size, round=3)


def log_too_short(logging_outputs: list[dict[str, Any]], name: str, texts: str) -> None:
    """Log how many utterances have fewer encoder steps than CTC needs for their text.

    Their CTC loss is 0, which a warning says once.

    Args:
        logging_outputs: Of all processes.
        name: Of the count in them and in the log.
        texts: What the texts are, for the warning.
    """
    if not any(name in log for log in logging_outputs):
        return
    count = int(sum(log.get(name, 0) for log in logging_outputs))
    metrics.log_scalar_sum(name, count)
    if count and name not in _warned:
        _warned.add(name)
        logger.warning(
            "%d of the %s of this update are longer than their encoder steps: no CTC alignment, "
            "their CTC loss counts as 0; %s in the log counts them all",
            count,
            texts,
            name,
        )
