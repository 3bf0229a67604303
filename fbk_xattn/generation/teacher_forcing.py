"""One decoder pass over final hypotheses, on the encoder output they were decoded from."""

from __future__ import annotations

from contextlib import nullcontext
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
        cross_attention: ``(L, H, S, T')``, float32, as its recorder has it; ``None`` if none was
            given.
    """

    prev_output_tokens: Tensor
    logits: Tensor
    encoder_out: Tensor
    cross_attention: Tensor | None


@torch.no_grad()
def teacher_force(
    model: FairseqEncoderDecoderModel,
    encoder_out: dict[str, Any],
    hypotheses: list[Tensor],
    pad: int,
    eos: int,
    recorder: CrossAttentionRecorder | None = None,
) -> list[TeacherForced]:
    """Run the decoder once over the hypotheses of a batch.

    Equal, within rounding, to what beam search computed step by step.

    Args:
        model: In evaluation mode.
        encoder_out: Of the batch, as fairseq's encoders return it.
        hypotheses: ``(S_i,)`` token indices of each utterance, eos last.
        pad: Index of the padding symbol.
        eos: Index of eos.
        recorder: Of the cross-attention of ``model.decoder``, to record the pass with.

    Returns:
        One view an utterance, in order.
    """
    inputs = [torch.cat([h.new_tensor([eos]), h[:-1]]) for h in hypotheses]
    tokens = data_utils.collate_tokens(inputs, pad)
    states = encoder_out["encoder_out"][0]
    with recorder or nullcontext():
        logits = model.decoder(tokens, encoder_out=encoder_out)[0]
    cross_attention = None if recorder is None else recorder.cross_attention()
    padding = encoder_out["encoder_padding_mask"]
    n_steps = (~padding[0]).sum(dim=1).tolist() if padding else [states.shape[0]] * states.shape[1]
    return [
        TeacherForced(
            prev_output_tokens=sequence,
            logits=logits[i, : len(sequence)],
            encoder_out=states[: n_steps[i], i],
            cross_attention=(
                None
                if cross_attention is None
                else cross_attention[i, :, :, : len(sequence), : n_steps[i]]
            ),
        )
        for i, sequence in enumerate(inputs)
    ]
