"""Corpus scores of texts as they are: WER, WER cut at 100, BLEU."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from fbk_xattn.analysis.metric import Metric

Scorer = Callable[[Sequence[str], Sequence[str]], float]


def wer(references: Sequence[str], hypotheses: Sequence[str]) -> float:
    """Return the word error rate of a corpus in percent, 0 or more, of the texts as they are.

    Substitutions, deletions and insertions of all utterances over the words of all references. No
    lower-casing, no removal of punctuation.

    Args:
        references: One an utterance.
        hypotheses: Theirs, in the same order.
    """
    import jiwer

    return 100.0 * float(jiwer.wer(list(references), list(hypotheses)))


def wer_max(references: Sequence[str], hypotheses: Sequence[str]) -> float:
    """Return :func:`wer` cut at 100, as hypotheses that run on would outweigh all other steps."""
    return min(100.0, wer(references, hypotheses))


def bleu(references: Sequence[str], hypotheses: Sequence[str]) -> float:
    """Return the BLEU of a corpus, 0 to 100, as sacrebleu computes it by default.

    Args:
        references: One an utterance.
        hypotheses: Theirs, in the same order.
    """
    return bleu_with_signature(references, hypotheses)[0]


def bleu_with_signature(references: Sequence[str], hypotheses: Sequence[str]) -> tuple[float, str]:
    """Return :func:`bleu` and the signature that says how it was computed."""
    from sacrebleu import BLEU

    metric = BLEU()
    score = float(metric.corpus_score(list(hypotheses), [list(references)]).score)
    return score, str(metric.get_signature())


@dataclass(frozen=True)
class TextScore:
    """A corpus score and its function."""

    metric: Metric
    score: Scorer


MORRIS = "Morris, Maier and Green 2004, From WER and RIL to MER and WIL"
POST = "Post 2018, A Call for Clarity in Reporting BLEU Scores"
TEXT_SCORES: Mapping[str, TextScore] = {
    "wer": TextScore(Metric("wer", "lower", 0.0, float("inf"), MORRIS, "%"), wer),
    "wer_max": TextScore(
        Metric("wer_max", "lower", 0.0, 100.0, "Fucci et al. 2024, arXiv:2411.01710", "%"), wer_max
    ),
    "bleu": TextScore(Metric("bleu", "higher", 0.0, 100.0, POST), bleu),
}


def usual_score(src_lang: str, tgt_lang: str) -> str:
    """Return the score of a task: ``wer_max`` for ASR (one language), ``bleu`` for ST (two)."""
    return "wer_max" if src_lang == tgt_lang else "bleu"
