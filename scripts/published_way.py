"""Occlusion maps computed the way the published system does, to measure against.

Own code, and plain: single precision; every occluded copy is an item of its own, built on the host
and collated; the whole model runs on each batch; scores are spread over all cells of each mask
before they are summed. Masks are those of our sampler, so the maps are equal to ours.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from fairseq.models import FairseqEncoderDecoderModel
from numpy.typing import NDArray
from torch import Tensor

from fbk_xattn.explain import Utterance
from fbk_xattn.explain.masks import Sampler, share
from fbk_xattn.explain.segmentation import Labels


@dataclass(frozen=True)
class PublishedWay:
    """The mask loop of one utterance.

    Attributes:
        model: In float32 and evaluation mode.
        utterance: On the device of the model.
        levels: Segmentations of what is occluded.
        sampler: Of masks.
        seed: Of masks.
        batch_size: Occluded copies in a batch.
    """

    model: FairseqEncoderDecoderModel
    utterance: Utterance
    levels: list[Labels]
    sampler: Sampler
    seed: int
    batch_size: int

    @torch.no_grad()
    def explain(self, target: str, n_masks: int) -> NDArray[np.float32]:
        """Return the map ``(S, T, F)`` of the input or ``(S, T', 1)`` of the encoder output."""
        device = self.utterance.logits.device
        original = self.utterance.logits.softmax(dim=-1)
        scores_sum = masks_sum = torch.zeros((), device=device)
        items = self._items(target, n_masks)
        while batch := list(islice(items, self.batch_size)):
            copies = torch.stack([copy for copy, _ in batch]).to(device)
            masks = torch.stack([mask for _, mask in batch]).to(device)
            predicted = self._logits(target, copies).softmax(dim=-1)
            scores = (original * (original.log() - predicted.log())).sum(dim=-1)  # (n, S)
            occluded = (1 - masks).unsqueeze(1)  # (n, 1, T, F)
            scores_sum = scores_sum + (scores[:, :, None, None] * occluded).sum(dim=0)
            masks_sum = masks_sum + occluded.sum(dim=0)
        saliency = torch.where(masks_sum > 0, scores_sum / masks_sum, 0.0)
        return np.asarray(saliency.cpu().numpy())

    def _items(self, target: str, n_masks: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield occluded copies with their masks ``(T, F)``, 1 where kept, one at a time."""
        source = self.utterance.features if target == "input" else self.utterance.encoder_out
        source = source.cpu()
        for level, n_level in enumerate(share(n_masks, len(self.levels))):
            labels = self.levels[level].reshape(len(source), -1)
            n_segments = int(labels.max()) + 1
            key = (self.seed, self.utterance.id, target, level)
            for number in range(n_level):
                occluded = self.sampler.occluded(key, number, number + 1, n_segments)[0]
                mask = torch.from_numpy((~occluded)[labels]).float()
                yield source * mask, mask

    def _logits(self, target: str, copies: Tensor) -> Tensor:
        """Run the model on occluded features ``(n, T, F)`` or encoder outputs ``(n, T', d)``."""
        tokens = self.utterance.prev_output_tokens.repeat(len(copies), 1)
        if target == "input":
            lengths = torch.full((len(copies),), copies.shape[1], device=copies.device)
            return self.model(copies, lengths, tokens)[0]
        padding = torch.zeros(copies.shape[:2], dtype=torch.bool, device=copies.device)
        encoder_out = {
            "encoder_out": [copies.transpose(0, 1).contiguous()],
            "encoder_padding_mask": [padding],
        }
        return self.model.decoder(tokens, encoder_out=encoder_out)[0]
