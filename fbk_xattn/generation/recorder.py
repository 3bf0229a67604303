"""Cross-attention weights of every decoder layer and head, taken while the decoder runs."""

from __future__ import annotations

from typing import Any

import torch
from fairseq.models import FairseqDecoder
from torch import Tensor

from fbk_xattn.generation.hooks import CrossAttentionHooks


class CrossAttentionRecorder(CrossAttentionHooks):
    """Context manager that records the cross-attention of one decoder pass.

    fairseq's speech-to-text decoders drop their attention weights, so they are taken where they are
    computed: the layers are asked for the weights of every head. Logits are unchanged.

    Example:
        >>> with CrossAttentionRecorder(model.decoder) as recorder:  # doctest: +SKIP
        ...     model.decoder(prev_output_tokens, encoder_out=encoder_out)
        >>> recorder.cross_attention().shape  # doctest: +SKIP
    """

    def __init__(self, decoder: FairseqDecoder) -> None:
        """Prepare for ``decoder``, a fairseq Transformer decoder (``decoder.layers``)."""
        super().__init__(decoder)
        self._weights: dict[int, Tensor] = {}

    def cross_attention(self) -> Tensor:
        """Return the weights ``(B, L, H, S, T')`` of the last pass; rows sum to 1.

        Raises:
            RuntimeError: No pass was recorded.
        """
        if len(self._weights) < len(self.modules):
            raise RuntimeError("no decoder pass was recorded")
        # Each is (H, B, S, T').
        weights = [self._weights[id(module)] for module in self.modules]
        return torch.stack(weights).permute(2, 0, 1, 3, 4)

    def before(self, module: Any, kwargs: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG002
        """Ask for the weights of every head."""
        return {**kwargs, "need_weights": True, "need_head_weights": True}

    def after(self, module: Any, output: tuple[Tensor, Tensor]) -> None:
        """Keep the weights."""
        self._weights[id(module)] = output[1].detach()
