"""Occlusion attribution: perturb, infer, aggregate."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from fairseq.models import FairseqEncoderDecoderModel
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from fbk_xattn.explain.batching import ShrinkingBatch
from fbk_xattn.explain.masks import Sampler, share
from fbk_xattn.explain.occlusion import Occluder
from fbk_xattn.explain.scoring import Scorer
from fbk_xattn.explain.segmentation import Labels
from fbk_xattn.explain.utterance import Utterance

# Without cuDNN's attention, which torch prefers on Hopper GPUs: it is planned for each new shape,
# for tens of milliseconds, and each utterance has shapes of its own.
ATTENTION = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


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
    sampler: Sampler
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
            perturbations_per_eval: Occluded copies in one pass of the model; fewer when the device
                runs out of memory.
            progress: Called with the number of masks done since the last call.

        Raises:
            ValueError: The model is in training mode, ``n_masks`` or ``perturbations_per_eval`` is
                below 1, or the segmenter's labels are none.
        """
        if model.encoder.training or model.decoder.training:
            raise ValueError("model in training mode, expected model.eval() before")
        for name, value in ("n_masks", n_masks), ("perturbations_per_eval", perturbations_per_eval):
            if value < 1:
                raise ValueError(f"{name} {value}: expected at least 1")
        levels = checked(self.segmenter(utterance), utterance)
        sums = [SegmentSums(labels, utterance) for labels in levels]
        shares = share(n_masks, len(levels))

        def draw(level: int, start: int, stop: int) -> Tensor:
            key = (seed, utterance.id, self.target, level)
            drawn = self.sampler.occluded(key, start, stop, len(sums[level].denominator))
            masks = torch.from_numpy(drawn)
            return masks.pin_memory() if utterance.features.is_cuda else masks

        def scores(level: int, occluded: Tensor) -> Tensor:
            with sdpa_kernel(ATTENTION):
                logits = self.occluder(model, utterance, sums[level].by_cell(occluded))
            return self.scorer(utterance, logits)

        stretches = [
            (level, start, min(start + perturbations_per_eval, shares[level]))
            for level in range(len(levels))
            for start in range(0, shares[level], perturbations_per_eval)
        ]
        batch = ShrinkingBatch(perturbations_per_eval)
        for (level, _, _), drawn in zip(stretches, ahead(draw, stretches), strict=True):
            occluded = drawn.to(utterance.features.device, non_blocking=True)
            for done in sums[level].add(batch, occluded, partial(scores, level)):
                if progress is not None:
                    progress(done)
        return [level.scores() for level in sums]


def checked(levels: list[Labels], utterance: Utterance) -> list[Labels]:
    """Return the labels of a segmenter if they are such.

    Raises:
        ValueError: There is no level, or one is no array of integers from 0 on, or one of the input
            has another shape than the features.
    """
    if not levels:
        raise ValueError("the segmenter gave no level, expected at least one")
    for level, labels in enumerate(levels):
        if not isinstance(labels, np.ndarray) or labels.dtype.kind not in "iu":
            raise ValueError(f"labels of level {level}: expected a numpy array of integers")
        shape = tuple(utterance.features.shape)
        if labels.ndim > 1 and labels.shape != shape:
            raise ValueError(f"labels of level {level}: {labels.shape}, expected {shape}")
        if labels.size == 0 or labels.min() < 0:
            raise ValueError(f"labels of level {level}: expected segments from 0 on")
    return levels


class SegmentSums:
    """Sums of scores over masks, for each segment, on the device of the model."""

    def __init__(self, labels: Labels, utterance: Utterance) -> None:
        """Begin with 0."""
        device, n_tokens = utterance.logits.device, len(utterance.logits)
        n_segments = int(labels.max()) + 1
        self._labels = labels
        self._cells = torch.from_numpy(labels.reshape(-1)).long().to(device)
        self.numerator = torch.zeros(n_tokens, n_segments, dtype=torch.float64, device=device)
        self.denominator = torch.zeros(n_segments, dtype=torch.int64, device=device)

    def by_cell(self, occluded: Tensor) -> Tensor:
        """Return ``(n, cells)`` from ``(n, n_segments)`` booleans."""
        return occluded.index_select(1, self._cells)

    def add(
        self, batch: ShrinkingBatch, occluded: Tensor, scores: Callable[[Tensor], Tensor]
    ) -> Iterator[int]:
        """Add the ``scores``, ``(n, S)``, of masks ``(n, n_segments)``; yield how many are done."""

        def sums(part: Tensor) -> tuple[Tensor, Tensor]:
            return (scores(part).t() @ part.float()).double(), part.sum(dim=0)

        for done, (numerator, denominator) in batch.run(occluded, sums):
            self.numerator += numerator
            self.denominator += denominator
            yield done

    def scores(self) -> LevelScores:
        """Return the sums so far."""
        return LevelScores(
            self._labels,
            self.numerator.float().cpu().numpy(),
            self.denominator.int().cpu().numpy(),
        )


def ahead(draw: Callable[..., Tensor], stretches: list[tuple[int, int, int]]) -> Iterator[Tensor]:
    """Yield what ``draw`` gives for each stretch, drawn while the one before is worked on."""
    with ThreadPoolExecutor(1) as thread:
        waiting: deque[Future[Tensor]] = deque()
        for stretch in stretches:
            waiting.append(thread.submit(draw, *stretch))
            if len(waiting) > 1:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
