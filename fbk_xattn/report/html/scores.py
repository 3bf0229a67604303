"""Scores of single utterances."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache
from typing import Any

from fbk_xattn.analysis.quality import normalized_wer


def utterance_wer(texts: Mapping[str, str]) -> float | None:
    """Return the word error rate of one hypothesis in percent, after the Whisper normaliser.

    Args:
        texts: Of the utterance: ``tgt_text``, ``hypothesis``, ``tgt_lang``.

    Returns:
        ``None`` where the normalised reference has no word, for which it is not defined.
    """
    score = normalized_wer([texts["tgt_text"]], [texts["hypothesis"]], texts["tgt_lang"])
    return None if math.isnan(score) else score


def utterance_bleu(texts: Mapping[str, str]) -> float | None:
    """Return the BLEU of one hypothesis, 0 to 100.

    With effective order, as sacrebleu scores sentences: orders of n-grams that are longer than the
    hypothesis are left out, which would make it 0.

    Args:
        texts: Of the utterance: ``tgt_text``, ``hypothesis``.

    Returns:
        ``None`` without a reference.
    """
    if not texts["tgt_text"].strip():
        return None
    return float(_sentence_bleu().sentence_score(texts["hypothesis"], [texts["tgt_text"]]).score)


@cache
def _sentence_bleu() -> Any:
    from sacrebleu import BLEU

    return BLEU(effective_order=True)
