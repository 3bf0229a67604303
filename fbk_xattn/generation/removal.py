"""Beam search on copies of utterances from which a part is removed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from fairseq.sequence_generator import EnsembleModel, SequenceGenerator
from numpy.typing import NDArray
from torch import Tensor


class GivenEncoderEnsemble(EnsembleModel):
    """fairseq's ensemble of one model, which decodes from an encoder output that it is given."""

    given: dict[str, Any] | None = None

    def forward_encoder(self, net_input: dict[str, Tensor]) -> list[dict[str, Any]]:
        """Return the given encoder output, or encode if there is none."""
        if self.given is None:
            return super().forward_encoder(net_input)
        return [self.given]


class RemovalGenerator(SequenceGenerator):
    """fairseq's beam search, which may also start from encoder outputs."""

    def __init__(self, models: list[Any], *args: Any, **kwargs: Any) -> None:
        """Do as fairseq's generator, for one model."""
        super().__init__(GivenEncoderEnsemble(models), *args, **kwargs)


@dataclass(frozen=True)
class Copy:
    """One item of a batch: an utterance without what one step removes.

    Attributes:
        row: Of the utterance in its batch.
        step: Number of the step, from 0.
    """

    row: int
    step: int


def batches_of_copies(
    rows: Sequence[int],
    n_steps: int,
    n_frames: Sequence[int],
    max_tokens: int | None,
    max_sentences: int | None,
) -> Iterator[list[Copy]]:
    """Group the copies of utterances into batches as large as those of fairseq.

    An utterance's copies follow one another; a batch may hold copies of several utterances, and an
    utterance's copies may be in several batches.

    Args:
        rows: Utterances of a batch to copy, the longest first.
        n_steps: Copies of each.
        n_frames: Of each utterance of the batch.
        max_tokens: ``--max-tokens``, frames of a batch with its padding; ``None`` for any number.
        max_sentences: ``--batch-size``, copies of a batch; ``None`` for any number.

    Returns:
        The batches, at least one copy in each.
    """
    batch: list[Copy] = []
    longest = 0
    for copy in (Copy(row, step) for row in rows for step in range(n_steps)):
        longest = max(longest, n_frames[copy.row])
        too_many_frames = max_tokens is not None and (len(batch) + 1) * longest > max_tokens
        too_many = max_sentences is not None and len(batch) >= max_sentences
        if batch and (too_many_frames or too_many):
            yield batch
            batch, longest = [], n_frames[copy.row]
        batch.append(copy)
    if batch:
        yield batch


def copies_without_features(
    batch: dict[str, Any], copies: Sequence[Copy], removed: Sequence[NDArray[np.bool_]]
) -> dict[str, Any]:
    """Return the batch of copies, with removed cells or frames set to 0.

    Args:
        batch: fairseq's, its features after the transforms of the data config.
        copies: To make.
        removed: For each copy ``(T, F)`` cells or ``(T,)`` frames of its utterance to zero.
    """
    sample = select_copies(batch, copies)
    features = sample["net_input"]["src_tokens"]
    for item, zeroed in enumerate(removed):
        mask = torch.from_numpy(zeroed).to(features.device)
        features[item, : len(mask)][mask] = 0
    return sample


def encoder_output_of_copies(
    model: Any,
    encoder_out: dict[str, Any],
    copies: Sequence[Copy],
    removed: Sequence[NDArray[np.bool_]],
) -> dict[str, Any]:
    """Return the encoder output of copies, with removed encoder steps set to 0.

    Args:
        model: That made it.
        encoder_out: Of the batch, as fairseq's encoders return it.
        copies: To make.
        removed: For each copy ``(T',)`` encoder steps of its utterance to zero.
    """
    states = encoder_out["encoder_out"][0]
    rows = torch.tensor([copy.row for copy in copies], device=states.device)
    selected = model.encoder.reorder_encoder_out(encoder_out, rows)
    states = selected["encoder_out"][0].clone()
    for item, zeroed in enumerate(removed):
        states[: len(zeroed), item][torch.from_numpy(zeroed).to(states.device)] = 0
    return {**selected, "encoder_out": [states]}


def select_copies(batch: dict[str, Any], copies: Sequence[Copy]) -> dict[str, Any]:
    """Return what beam search reads of a batch, an item a copy, cut to the longest of them."""
    net_input = batch["net_input"]
    lengths = net_input["src_lengths"]
    rows = torch.tensor([copy.row for copy in copies], device=lengths.device)
    longest = int(lengths[rows].max())
    return {
        "net_input": {
            "src_tokens": net_input["src_tokens"][:, :longest].index_select(0, rows),
            "src_lengths": lengths.index_select(0, rows),
            "prev_output_tokens": net_input["prev_output_tokens"].index_select(0, rows),
        }
    }
