"""Cross-attention of every decoder layer and head, taken while the decoder runs."""

from __future__ import annotations

from typing import Any

import torch
from fairseq.models import FairseqDecoder
from torch import Tensor
from torch.nn import functional

from fbk_xattn.generation.hooks import CrossAttentionHooks


class CrossAttentionRecorder(CrossAttentionHooks):
    """Context manager that records the cross-attention weights of one decoder pass.

    fairseq's speech-to-text decoders drop their attention weights, so they are taken where they are
    computed: the layers are asked for the weights of every head. Logits are unchanged.

    Example:
        >>> with CrossAttentionRecorder(model.decoder) as recorder:  # doctest: +SKIP
        ...     model.decoder(prev_output_tokens, encoder_out=encoder_out)
        >>> recorder.cross_attention().shape  # doctest: +SKIP
    """

    def __init__(self, decoder: FairseqDecoder) -> None:
        """Prepare for ``decoder``, a fairseq Transformer decoder (``decoder.layers``).

        Raises:
            InputError: It is another kind of decoder, or one without cross-attention.
        """
        super().__init__(decoder)
        self._recorded: dict[int, Tensor] = {}

    def cross_attention(self) -> Tensor:
        """Return the weights ``(B, L, H, S, T')`` of the last pass, float32; rows sum to 1.

        Raises:
            RuntimeError: No pass was recorded.
        """
        if len(self._recorded) < len(self.modules):
            raise RuntimeError("no decoder pass was recorded")
        # Each is (H, B, S, T').
        layers = [self._recorded[id(module)] for module in self.modules]
        return torch.stack(layers).permute(2, 0, 1, 3, 4)

    def before(self, module: Any, kwargs: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG002
        """Ask for the weights of every head."""
        return {**kwargs, "need_weights": True, "need_head_weights": True}

    def after(self, module: Any, output: tuple[Tensor, Tensor]) -> None:
        """Keep the weights."""
        self._recorded[id(module)] = output[1].detach().float()


class CrossAttentionNormRecorder(CrossAttentionRecorder):
    """Context manager that records norm-weighted cross-attention of one decoder pass.

    For token ``i`` and encoder step ``t``, the Euclidean norm of the vector that the step adds to
    the output of a layer through one head: ``|| alpha_{i,t} f(x_t) ||`` with the weight ``alpha``
    and ``f(x) = (x W_V + b_V) W_O``, where ``W_V`` and ``b_V`` are what gives the value of the
    head, and ``W_O`` the rows of the output projection that take it (Kobayashi et al. 2020,
    'Attention is Not Only a Weight', arXiv:2004.10102). The bias of the output projection, which
    belongs to no step and no head, is left out.

    A weight is never negative, so the norm is ``alpha_{i,t} || f(x_t) ||``, and vectors are needed
    for encoder steps alone.
    """

    def __init__(self, decoder: FairseqDecoder) -> None:
        """Prepare for ``decoder``, a fairseq Transformer decoder (``decoder.layers``).

        Raises:
            InputError: It is another kind of decoder, or one without cross-attention.
        """
        super().__init__(decoder)
        self._norms: dict[int, Tensor] = {}

    def cross_attention(self) -> Tensor:
        """Return the norms ``(B, L, H, S, T')`` of the last pass, float32, 0 or more.

        Raises:
            RuntimeError: No pass was recorded.
        """
        return super().cross_attention()

    def before(self, module: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
        """Keep the norms of the transformed encoder steps; ask for the weights of every head."""
        self._norms[id(module)] = _transformed_norms(module, kwargs["value"])
        return super().before(module, kwargs)

    def after(self, module: Any, output: tuple[Tensor, Tensor]) -> None:
        """Keep the weights times the norms."""
        super().after(module, output)
        # Not in place: the weights are the output of the module.
        self._recorded[id(module)] = self._recorded[id(module)] * self._norms.pop(id(module))


# By name, as the flag --cross-attention has it.
RECORDERS: dict[str, type[CrossAttentionRecorder]] = {
    "weights": CrossAttentionRecorder,
    "norms": CrossAttentionNormRecorder,
}


@torch.no_grad()
def _transformed_norms(attention: Any, encoder_out: Tensor) -> Tensor:
    """Return ``|| f(x_t) ||`` of every head, ``(H, B, 1, T')``, from ``(T', B, d)``.

    In float32, as squares of half precision overflow at a norm of 256. Head by head, as the vectors
    of all heads together would take ``H`` times the memory of the encoder output.
    """
    values = attention.v_proj(encoder_out).float().chunk(attention.num_heads, dim=-1)
    outputs = attention.out_proj.weight.float().chunk(attention.num_heads, dim=1)
    norms = [
        functional.linear(value, output).norm(dim=-1).t()
        for value, output in zip(values, outputs, strict=True)
    ]
    return torch.stack(norms).unsqueeze(2)
