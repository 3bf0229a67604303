"""What an explanation starts from: one utterance with its hypothesis and original distributions."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Utterance:
    """One utterance as the model decoded it.

    ``T`` is the number of feature frames, ``F`` of mel bins, ``T'`` of encoder steps, ``d`` the
    model dimension, ``S`` the number of hypothesis tokens (language tag and eos included) and ``V``
    the size of the vocabulary. All tensors are on the device of the model, without padding.

    Attributes:
        id: Its key; masks depend on it.
        features: ``(T, F)``, what the encoder was given (after utterance CMVN).
        encoder_out: ``(T', d)``.
        prev_output_tokens: ``(S,)``, the decoder's input: eos, then the hypothesis without its eos.
        logits: ``(S, V)``, of the decoder on the unoccluded utterance under teacher forcing.
    """

    id: str
    features: Tensor
    encoder_out: Tensor
    prev_output_tokens: Tensor
    logits: Tensor

    @property
    def tokens(self) -> Tensor:
        """The hypothesis, ``(S,)``: row ``i`` of the logits predicts token ``i``; eos is last.

        Example:
            >>> import torch
            >>> eos, tag, word = 2, 7, 8
            >>> given, logits = torch.tensor([eos, tag, word]), torch.zeros(3, 9)
            >>> Utterance("a", torch.zeros(8, 80), torch.zeros(2, 4), given, logits).tokens
            tensor([7, 8, 2])
        """
        return self.prev_output_tokens.roll(-1)
