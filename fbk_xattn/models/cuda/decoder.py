"""fairseq's Transformer decoder under teacher forcing, without gradients."""

from __future__ import annotations

import copy
from typing import Any

import torch
from fairseq.models import FairseqDecoder
from torch import Tensor, nn
from torch.nn import functional

from fbk_xattn.models.cuda.rowwise import normalise
from fbk_xattn.models.inference import (
    AlignedLinear,
    CrossAttention,
    logits_dtype,
    residual_dtype,
)


class FusedDecoder(FairseqDecoder):
    """A trained decoder that computes the same in fewer passes over memory.

    See :class:`fbk_xattn.models.cuda.encoder.FusedEncoder`. Embedding (``embed_tokens``) and
    cross-attention (``layers[i].encoder_attn``) are modules, for hooks.
    """

    def __init__(self, decoder: Any, dtype: torch.dtype) -> None:
        """Take over the weights of a plain decoder on a CUDA device, in ``dtype``."""
        super().__init__(decoder.dictionary)
        self._logits_dtype = logits_dtype(dtype, on_gpu=True)
        self.output_projection = AlignedLinear(decoder.output_projection, self._logits_dtype)
        self._norm = _as_float(decoder.layer_norm.weight, decoder.layer_norm.bias)
        wanted = residual_dtype(dtype)
        self.embed_tokens = copy.deepcopy(decoder.embed_tokens).to(wanted)
        self.embed_positions = copy.deepcopy(decoder.embed_positions).to(wanted)
        decoder = copy.deepcopy(decoder).to(dtype)
        self._scale = decoder.embed_scale
        offset = torch.zeros_like(decoder.layer_norm.weight, dtype=torch.float32)
        self.layers = nn.ModuleList()
        for layer in decoder.layers:
            self.layers.append(FusedDecoderLayer(layer, offset))
            offset = offset + _as_float(layer.self_attn.out_proj.bias, layer.fc2.bias).sum(dim=0)
        self._offset, self._eps = offset, decoder.layer_norm.eps

    def forward(
        self, prev_output_tokens: Tensor, encoder_out: dict[str, Any]
    ) -> tuple[Tensor, dict[str, Any]]:
        """Decode.

        Args:
            prev_output_tokens: ``(n, S)``, all rows the same, without padding.
            encoder_out: Of ``n`` utterances without padding.

        Returns:
            Logits ``(n, S, V)``, not contiguous, and nothing more.
        """
        embedded = self._scale * self.embed_tokens(prev_output_tokens)
        embedded = embedded + self.embed_positions(prev_output_tokens[:1]).to(embedded.dtype)
        shape = (*embedded.shape[1::-1], -1)
        x = embedded.transpose(0, 1).flatten(0, 1)
        encoded = encoder_out["encoder_out"][0]
        for layer in self.layers:
            layer(x, shape, encoded)
        normed = normalise(x, self._offset, self._norm, self._eps, dtype=self._logits_dtype)
        return self.output_projection(normed.view(shape)).transpose(0, 1), {}


class FusedDecoderLayer(nn.Module):
    """Causal self-attention, cross-attention, feed-forward."""

    def __init__(self, layer: Any, offset: Tensor) -> None:
        """Take over the weights of ``layer``.

        Args:
            layer: Of fairseq.
            offset: ``(d,)``, what the biases of the layers before add up to.
        """
        super().__init__()
        attention = layer.self_attn
        self.encoder_attn = CrossAttention(layer.encoder_attn)
        self._heads, self._scale = attention.num_heads, attention.scaling
        self._activation, self._eps = layer.activation_fn, layer.final_layer_norm.eps
        norms = (layer.self_attn_layer_norm, layer.encoder_attn_layer_norm, layer.final_layer_norm)
        self._norms = [_as_float(norm.weight, norm.bias) for norm in norms]
        projections = (attention.q_proj, attention.k_proj, attention.v_proj)
        self._project = (
            torch.cat([projection.weight for projection in projections]).detach(),
            torch.cat([projection.bias for projection in projections]).detach(),
        )
        self._attention_out = attention.out_proj.weight.detach()
        self._first = (layer.fc1.weight.detach(), layer.fc1.bias.detach())
        self._second = layer.fc2.weight.detach()
        after_attention = offset + _as_float(attention.out_proj.bias)[0]
        self._offsets = (offset, after_attention, after_attention)

    def forward(self, x: Tensor, shape: tuple[int, ...], encoded: Tensor) -> None:
        """Add to ``x`` ``(S n, d)`` in place; ``encoded`` is ``(T', n, d)``."""
        projected = functional.linear(self._normed(x, 0), *self._project)
        # (S n, 3 d) to queries, keys and values (n, H, S, d / H).
        parts = projected.view(*shape[:2], 3, self._heads, -1).permute(2, 1, 3, 0, 4)
        query, key, value = parts.unbind()
        attended = functional.scaled_dot_product_attention(
            query, key, value, is_causal=True, scale=self._scale
        )
        _add_product(x, attended.permute(2, 0, 1, 3).reshape(x.shape), self._attention_out)
        attended, _ = self.encoder_attn(
            query=self._normed(x, 1).view(shape), key=encoded, value=encoded
        )
        x.add_(attended.view_as(x))
        inner = self._activation(functional.linear(self._normed(x, 2), *self._first))
        _add_product(x, inner, self._second)

    def _normed(self, x: Tensor, number: int) -> Tensor:
        offset, norm = self._offsets[number], self._norms[number]
        return normalise(x, offset, norm, self._eps, dtype=self._second.dtype)


def _add_product(x: Tensor, inputs: Tensor, weight: Tensor) -> None:
    """Add ``inputs`` times the transposed ``weight`` in place, in the precision of ``x``."""
    if x.dtype == weight.dtype:
        x.addmm_(inputs, weight.t())
    else:
        x.add_(functional.linear(inputs, weight))


def _as_float(*vectors: Tensor) -> Tensor:
    """Return ``(len(vectors), d)`` in float32."""
    return torch.stack([vector.detach().float() for vector in vectors])
