"""Scores of deletion and insertion: what removing the salient part does to the hypotheses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fbk_xattn.analysis.metric import Metric, area
from fbk_xattn.analysis.ranking import RANKING_MAPS
from fbk_xattn.analysis.references import check_references
from fbk_xattn.analysis.text_scores import TEXT_SCORES, usual_score
from fbk_xattn.errors import InputError
from fbk_xattn.store.curves import INSERTION, CurveStore, DecodedCurve

SPES = "Fucci et al. 2024, arXiv:2411.01710"


def auc_metric(mode: str, score: str) -> Metric:
    """Say what an AUC means.

    A faithful map names first what the model needs: deletion in its order ruins hypotheses early,
    insertion restores them early.

    Args:
        mode: ``"deletion"`` or ``"insertion"``.
        score: Name in :data:`~fbk_xattn.analysis.text_scores.TEXT_SCORES`.
    """
    quality = TEXT_SCORES[score].metric
    higher_is_better = (quality.better == "higher") == (mode == INSERTION)
    return Metric(
        f"{mode} AUC ({score})",
        "higher" if higher_is_better else "lower",
        quality.low,
        quality.high,
        SPES,
    )


@dataclass(frozen=True, eq=False)
class ScoredCurve:
    """A corpus score at every step of deletion or insertion.

    Attributes:
        mode: ``"deletion"`` or ``"insertion"``.
        map_name: The map that ranked the units.
        score: Name in :data:`~fbk_xattn.analysis.text_scores.TEXT_SCORES`.
        languages: Source and target language; ``None`` where utterances of all were scored
            together.
        ids: The utterances.
        percentages: ``(P,)``, share of the units removed (deletion) or kept (insertion), 0 to 100.
        scores: ``(P,)``: WER in percent, or BLEU.
    """

    mode: str
    map_name: str
    score: str
    languages: tuple[str, str] | None
    ids: tuple[str, ...]
    percentages: NDArray[np.int64]
    scores: NDArray[np.float64]

    @property
    def unit(self) -> str:
        """What the map ranked: ``cells``, ``frames`` or ``encoder steps``."""
        return RANKING_MAPS[self.map_name].unit

    @property
    def metric(self) -> Metric:
        """What :attr:`auc` means."""
        return auc_metric(self.mode, self.score)

    @property
    def auc(self) -> float:
        """Area under the curve by the trapezoidal rule, as papers print it: 0 to 100.

        The published script prints it times 100.
        """
        return area(self.percentages, self.scores)


def score_curve(
    references: Sequence[str], hypotheses: Sequence[Sequence[str]], score: str
) -> NDArray[np.float64]:
    """Score a corpus at every step.

    Args:
        references: Of the ``U`` utterances.
        hypotheses: For each of the ``P`` steps those of all utterances, in the same order.
        score: Name in :data:`~fbk_xattn.analysis.text_scores.TEXT_SCORES`.

    Returns:
        ``(P,)``.

    Raises:
        InputError: Unknown score.
    """
    if score not in TEXT_SCORES:
        raise InputError(f"score {score!r}: expected one of {', '.join(TEXT_SCORES)}")
    function = TEXT_SCORES[score].score
    return np.array([function(references, step) for step in hypotheses])


def evaluate(
    store: CurveStore,
    scores: Sequence[str] | None = None,
    references: Mapping[str, str] | None = None,
) -> tuple[ScoredCurve, ...]:
    """Score what a deletion or insertion run decoded.

    Args:
        store: Of ``fairseq-generate --deletion`` or ``--insertion``.
        scores: Names in :data:`~fbk_xattn.analysis.text_scores.TEXT_SCORES`, over all utterances
            together. By default each language pair apart, with ``wer_max`` for ASR (one language)
            and ``bleu`` for ST (two).
        references: Utterance id to reference, instead of those of the store.

    Returns:
        One curve a score, or one a language pair, sorted by source and target language.

    Raises:
        InputError: The store is empty or has a damaged file, an utterance has no reference, or a
            score is unknown.
    """
    curves = {curve.id: curve for curve in store}
    if not curves:
        raise InputError(f"{store.path}: no utterance in this folder, expected at least one")
    texts = check_references(
        {name: curve.tgt_text for name, curve in curves.items()}, references, str(store.path)
    )
    if scores is not None:
        return tuple(_scored(store, score, None, curves, texts) for score in scores)
    pairs = sorted({(curve.src_lang, curve.tgt_lang) for curve in curves.values()})
    return tuple(
        _scored(
            store,
            usual_score(*pair),
            pair,
            {n: c for n, c in curves.items() if (c.src_lang, c.tgt_lang) == pair},
            texts,
        )
        for pair in pairs
    )


def _scored(
    store: CurveStore,
    score: str,
    languages: tuple[str, str] | None,
    curves: Mapping[str, DecodedCurve],
    references: Mapping[str, str],
) -> ScoredCurve:
    ids = tuple(curves)
    percentages = curves[ids[0]].percentages
    hypotheses = [
        [curves[name].steps[step].hypothesis for name in ids] for step in range(len(percentages))
    ]
    return ScoredCurve(
        mode=store.mode,
        map_name=store.map_name,
        score=score,
        languages=languages,
        ids=ids,
        percentages=percentages,
        scores=score_curve([references[name] for name in ids], hypotheses, score),
    )
