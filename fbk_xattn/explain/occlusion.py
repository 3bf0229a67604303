"""Running the model with parts of an utterance occluded."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from fairseq.models import FairseqEncoderDecoderModel
from torch import Tensor

from fbk_xattn.explain.shared_attention import SharedCrossAttention
from fbk_xattn.explain.utterance import Utterance


class Occluder(Protocol):
    """Runs the model on occluded copies of an utterance."""

    def __call__(
        self, model: FairseqEncoderDecoderModel, utterance: Utterance, occluded: Tensor
    ) -> Tensor:
        """Return logits ``(n, S, V)`` under teacher forcing.

        Args:
            model: In evaluation mode.
            utterance: On the device of the model.
            occluded: ``(n, cells)`` booleans, true where occluded, in the order of the labels of
                the segmentation, flattened.
        """


def occlude_input(
    model: FairseqEncoderDecoderModel, utterance: Utterance, occluded: Tensor
) -> Tensor:
    """Set cells of the features to 0, their mean after utterance CMVN; run the whole model.

    ``occluded`` is ``(n, T * F)``. See :class:`Occluder`.
    """
    n_frames, n_bins = utterance.features.shape
    features = utterance.features.to(_dtype(model))
    features = features.masked_fill(occluded.view(-1, n_frames, n_bins), 0.0)
    # All copies have one length: without lengths our encoders skip padding masks altogether.
    lengths = features.new_full((len(features),), n_frames, dtype=torch.long)
    encoder_out = model.encoder(src_tokens=features, src_lengths=lengths)
    return _decode(model, utterance, encoder_out, len(features))


def occlude_encoder_output(
    model: FairseqEncoderDecoderModel, utterance: Utterance, occluded: Tensor
) -> Tensor:
    """Set encoder steps to 0; run the decoder alone.

    ``occluded`` is ``(n, T')``. See :class:`Occluder`.
    """
    encoder_out = utterance.encoder_out.to(_dtype(model))
    with SharedCrossAttention(model.decoder, encoder_out, ~occluded) as attention:
        return _decode(model, utterance, attention.placeholder, len(occluded))


def _decode(
    model: FairseqEncoderDecoderModel,
    utterance: Utterance,
    encoder_out: dict[str, Any],
    n_copies: int,
) -> Tensor:
    tokens = utterance.prev_output_tokens.unsqueeze(0).expand(n_copies, -1)
    return model.decoder(tokens, encoder_out=encoder_out)[0]


def _dtype(model: FairseqEncoderDecoderModel) -> torch.dtype:
    """Return in which precision the layers compute; embeddings and utterances may have another."""
    decoder = model.decoder
    return next(getattr(decoder, "layers", decoder).parameters()).dtype
