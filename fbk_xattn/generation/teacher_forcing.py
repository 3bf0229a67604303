"""One decoder pass over final hypotheses, on the encoder output they were decoded from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from fairseq.data import data_utils
from fairseq.models import FairseqEncoderDecoderModel
from torch import Tensor

from fbk_xattn.generation.recorder import CrossAttentionRecorder


@dataclass(frozen=True)
class TeacherForced:
    """The decoder's view of one hypothesis, without padding.

    Attributes:
        prev_output_tokens: ``(S,)``, eos and the hypothesis without its eos.
        logits: ``(S, V)``.
        encoder_out: ``(T', d)``.
        cross_attention: ``(L, H, S, T')``, float32, rows sum to 1.
    """

    prev_output_tokens: Tensor
    logits: Tensor
    encoder_out: Tensor
    cross_attention: Tensor


@torch.no_grad()
def teacher_force(
    model: FairseqEncoderDecoderModel,
    encoder_out: dict[str, Any],
    hypotheses: list[Tensor],
    pad: int,
    eos: int,
) -> list[TeacherForced]:
    """Run the decoder once over the hypotheses of a batch.

    Equal, within rounding, to what beam search computed step by step.

    Args:
        model: In evaluation mode.
        encoder_out: Of the batch, as fairseq's encoders return it.
        hypotheses: ``(S_i,)`` token indices of each utterance, eos last.
        pad: Index of the padding symbol.
        eos: Index of eos.

    Returns:
        One view an utterance, in order.
    """
    inputs = [torch.cat([h.new_tensor([eos]), h[:-1]]) for h in hypotheses]
    tokens = data_utils.collate_tokens(inputs, pad)
    states = encoder_out["encoder_out"][0]
    with CrossAttentionRecorder(model.decoder) as recorder:
        logits = model.decoder(tokens, encoder_out=encoder_out)[0]
    cross_attention = recorder.cross_attention().float()
    padding = encoder_out["encoder_padding_mask"]
    n_steps = (~padding[0]).sum(dim=1).tolist() if padding else [states.shape[0]] * states.shape[1]
    return [
        TeacherForced(
            prev_output_tokens=sequence,
            logits=logits[i, : len(sequence)],
            encoder_out=states[: n_steps[i], i],
            cross_attention=cross_attention[i, :, :, : len(sequence), : n_steps[i]],
        )
        for i, sequence in enumerate(inputs)
    ]
