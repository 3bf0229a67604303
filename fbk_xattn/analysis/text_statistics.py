"""What corpus scores of texts are sums of, utterance by utterance, so that they can be resampled.

WER and BLEU are no means over utterances, but each is a function of sums over utterances: of edits
and words, and of n-gram counts and lengths.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fbk_xattn.errors import InputError

ORDERS = 4  # of n-grams, as sacrebleu's default
TextStatistics = Callable[[str, str], tuple[float, ...]]


@dataclass(frozen=True)
class SummedScore:
    """A corpus score as a function of sums.

    Attributes:
        statistics: From a reference and a hypothesis to ``K`` numbers.
        score: From their sums ``(..., K)`` to the score ``(...)``.
    """

    statistics: TextStatistics
    score: Callable[[NDArray[np.float64]], NDArray[np.float64]]


def statistics(
    score: str, references: Sequence[str], hypotheses: Sequence[Sequence[str]]
) -> NDArray[np.float64]:
    """Return what the score of a corpus is a function of.

    Args:
        score: Name in :data:`SUMMED_SCORES`.
        references: Of the ``U`` utterances.
        hypotheses: Of each utterance, ``P`` of them (one a step of deletion, say).

    Returns:
        ``(U, P, K)``.

    Raises:
        InputError: Unknown score.
    """
    if score not in SUMMED_SCORES:
        raise InputError(f"score {score!r}: expected one of {', '.join(SUMMED_SCORES)}")
    of_one = SUMMED_SCORES[score].statistics
    return np.array(
        [
            [of_one(reference, hypothesis) for hypothesis in some]
            for reference, some in zip(references, hypotheses, strict=True)
        ],
        dtype=np.float64,
    )


@lru_cache(maxsize=1 << 17)  # the steps of deletion repeat hypotheses
def word_errors(reference: str, hypothesis: str) -> tuple[float, float]:
    """Return the edits from reference to hypothesis and the words of the reference.

    Of the texts as they are, words separated by white space, as :func:`jiwer.wer` counts them.
    """
    import jiwer

    if not reference.strip():
        return float(len(hypothesis.split())), 0.0
    counts = jiwer.process_words(reference, hypothesis)
    edits = counts.substitutions + counts.deletions + counts.insertions
    return float(edits), float(counts.hits + counts.substitutions + counts.deletions)


def wer_of_sums(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the WER in percent of sums of :func:`word_errors`, ``(..., 2)`` to ``(...)``."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return 100.0 * sums[..., 0] / np.where(sums[..., 1] > 0, sums[..., 1], np.nan)


@lru_cache(maxsize=1 << 17)
def ngram_counts(reference: str, hypothesis: str) -> tuple[float, ...]:
    """Return lengths of hypothesis and reference, matched n-grams and n-grams of the hypothesis.

    As sacrebleu counts them by default: ``2 + ORDERS + ORDERS`` numbers.
    """
    counted = _sentence_bleu().sentence_score(hypothesis, [reference])
    numbers = (counted.sys_len, counted.ref_len, *counted.counts, *counted.totals)
    return tuple(float(number) for number in numbers)


@cache
def _sentence_bleu() -> Any:
    from sacrebleu import BLEU

    # effective_order has no part in the counts; without it sacrebleu warns at every sentence.
    return BLEU(effective_order=True)


def bleu_of_sums(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the BLEU of sums of :func:`ngram_counts`, ``(..., 10)`` to ``(...)``, 0 to 100.

    With the exponential smoothing of sacrebleu's default: the n-th order without a match has the
    precision of half as many matches as the one before it, beginning with one half.
    """
    hypothesis, reference = sums[..., 0], sums[..., 1]
    matches, totals = sums[..., 2 : 2 + ORDERS], sums[..., 2 + ORDERS :]
    is_zero = matches == 0
    smoothed = np.where(is_zero, 0.5 ** np.cumsum(is_zero, axis=-1), matches)
    with np.errstate(invalid="ignore", divide="ignore"):
        logs = np.log(smoothed / totals).mean(axis=-1)
        brevity = np.minimum(0.0, 1.0 - reference / hypothesis)
        score = 100.0 * np.exp(logs + brevity)
    # Without any match, or without n-grams of an order, sacrebleu's BLEU is 0.
    undefined = is_zero.all(axis=-1) | (totals == 0).any(axis=-1)
    return np.where(undefined, 0.0, score)


def _wer_max(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.minimum(100.0, wer_of_sums(sums))


SUMMED_SCORES: Mapping[str, SummedScore] = {
    "wer": SummedScore(word_errors, wer_of_sums),
    "wer_max": SummedScore(word_errors, _wer_max),
    "bleu": SummedScore(ngram_counts, bleu_of_sums),
}
