"""Occlusion attribution: perturb, infer, aggregate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from fairseq.models import FairseqEncoderDecoderModel
from numpy.typing import NDArray
from torch import Tensor

from fbk_xattn.explain.masks import MaskSampler, share
from fbk_xattn.explain.occlusion import Occluder
from fbk_xattn.explain.scoring import Scorer
from fbk_xattn.explain.segmentation import Labels
from fbk_xattn.explain.utterance import Utterance


@dataclass(frozen=True)
class LevelScores:
    """Scores accumulated over the masks of one segmentation.

    Attributes:
        labels: The segmentation.
        numerator: ``(S, n_segments)``, sum of the scores of the masks that occluded a segment.
        denominator: ``(n_segments,)``, number of masks that occluded a segment.
    """

    labels: Labels
    numerator: NDArray[np.float32]
    denominator: NDArray[np.int32]


@dataclass(frozen=True)
class Explainer:
    """An attribution method for one target, as a composition.

    Attributes:
        target: What is occluded, a part of the masks' key (``input``, ``encoder``).
        segmenter: Groups the cells of an utterance, in one or several ways (levels).
        sampler: Draws which segments a mask occludes.
        occluder: Runs the model on occluded copies.
        scorer: Compares the distributions with the original ones.

    Example:
        >>> from fbk_xattn.explain import (Explainer, MaskSampler, SlicPyramid,
        ...     kl_divergence, occlude_input)
        >>> spes = Explainer(
        ...     "input", SlicPyramid(), MaskSampler(0.5), occlude_input, kl_divergence)
    """

    target: str
    segmenter: Callable[[Utterance], list[Labels]]
    sampler: MaskSampler
    occluder: Occluder
    scorer: Scorer

    @torch.no_grad()
    def explain(
        self,
        model: FairseqEncoderDecoderModel,
        utterance: Utterance,
        n_masks: int,
        seed: int,
        perturbations_per_eval: int,
        progress: Callable[[int], None] | None = None,
    ) -> list[LevelScores]:
        """Return the scores of each level, from ``n_masks`` masks in all.

        The saliency of a cell is the mean score of the masks that occluded it:
        ``sum_m KL_m (1 - mask_m) / sum_m (1 - mask_m)`` (SPES, Fucci et al. 2024). Masks are
        constant on segments, so the sums are kept for each segment and never for each cell.

        Args:
            model: In evaluation mode.
            utterance: On the device of the model.
            n_masks: Masks in all, spread over the levels.
            seed: Of the masks. They also depend on the utterance's id, the target, the level and
                the number of the mask, and on nothing else.
            perturbations_per_eval: Occluded copies in one pass of the model.
            progress: Called with the number of masks done since the last call.
        """
        levels = self.segmenter(utterance)
        scores = []
        for level, (labels, n_level) in enumerate(
            zip(levels, share(n_masks, len(levels)), strict=True)
        ):
            n_segments = int(labels.max()) + 1
            cells = torch.from_numpy(labels.reshape(-1)).long().to(utterance.logits.device)
            numerator = torch.zeros(
                len(utterance.logits), n_segments, dtype=torch.float64, device=cells.device
            )
            denominator = np.zeros(n_segments, dtype=np.int32)
            for start in range(0, n_level, perturbations_per_eval):
                stop = min(start + perturbations_per_eval, n_level)
                key = (seed, utterance.id, self.target, level)
                drawn = self.sampler.occluded(key, start, stop, n_segments)
                occluded = torch.from_numpy(drawn).to(cells.device)
                logits = self.occluder(model, utterance, occluded[:, cells])
                score: Tensor = self.scorer(utterance.logits, logits)
                numerator += (score.t() @ occluded.float()).double()
                denominator += drawn.sum(axis=0, dtype=np.int32)
                if progress is not None:
                    progress(stop - start)
            scores.append(LevelScores(labels, numerator.float().cpu().numpy(), denominator))
        return scores
