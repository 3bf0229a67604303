"""``--no-repeat-ngram-size``, for all hypotheses of a batch at once."""

from __future__ import annotations

import math

import torch
from fairseq.sequence_generator import SequenceGenerator
from torch import Tensor, nn


class RepeatedNgramBlock(nn.Module):
    """Forbids tokens that would complete an n-gram which their hypothesis already has.

    Forbids what fairseq's CUDA extension does. Without that extension, which no wheel of fairseq
    has, fairseq compares with the padding after a hypothesis and so forbids nothing, and it visits
    the hypotheses one by one, which for a batch of deletion takes longer than the model.
    """

    def __init__(self, size: int) -> None:
        """Create the block.

        Args:
            size: Tokens of an n-gram, at least 1.
        """
        super().__init__()
        self.size = size

    def forward(
        self, tokens: Tensor, lprobs: Tensor, bsz: int, beam_size: int, step: int
    ) -> Tensor:
        """Set forbidden tokens to minus infinity, in place.

        Args:
            tokens: ``(N, L)``, begin symbol and hypothesis; ``step + 1`` tokens count.
            lprobs: ``(N, V)``, log-probabilities of the next token.
            bsz: Utterances of the batch.
            beam_size: Hypotheses of each; ``N`` is the product of both.
            step: Of the beam search, from 0.

        Returns:
            ``lprobs``.
        """
        del bsz, beam_size
        if step < self.size:
            return lprobs
        hypotheses = tokens[:, 1 : step + 1]
        ngrams = hypotheses.unfold(1, self.size, 1)
        begun = hypotheses[:, None, step - self.size + 1 :]
        repeats = (ngrams[..., :-1] == begun).all(dim=-1)
        # What does not repeat goes into a column of its own.
        n_tokens = lprobs.shape[1]
        columns = ngrams[..., -1].masked_fill(~repeats, n_tokens)
        forbidden = torch.zeros(len(lprobs), n_tokens + 1, dtype=torch.bool, device=lprobs.device)
        forbidden.scatter_(1, columns, True)
        return lprobs.masked_fill_(forbidden[:, :n_tokens], -math.inf)


def block_repeated_ngrams(generator: SequenceGenerator) -> None:
    """Give a beam search with ``--no-repeat-ngram-size`` the block of this module."""
    # What scores references (--score-reference) searches nothing.
    blocker = getattr(generator, "repeat_ngram_blocker", None)
    if blocker is not None:
        generator.repeat_ngram_blocker = RepeatedNgramBlock(blocker.no_repeat_ngram_size)
