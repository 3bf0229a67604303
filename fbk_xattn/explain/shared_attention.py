"""Cross-attention to many occluded copies of one encoder output, with one set of keys."""

from __future__ import annotations

from typing import Any

import torch
from fairseq.models import FairseqDecoder
from torch import Tensor, nn

from fbk_xattn.generation.hooks import CrossAttentionHooks


class SharedCrossAttention(CrossAttentionHooks):
    """Context manager in which a decoder attends to occluded copies of one encoder output.

    An encoder step set to 0 has the biases as its key and value. With ``K'_t = W_k h_t``,
    ``V'_t = W_v h_t`` and ``m_t`` 1 for a kept and 0 for an occluded step, the attention of a copy
    is ``a = softmax_t(m_t q . K'_t)``, as the bias of the key adds the same for all ``t``, and its
    output ``sum_t a_t m_t V'_t + b_v``. So keys and values are computed once, not for each copy.

    Each layer's ``encoder_attn`` gets a query of one token to be quick about, and the attention to
    the copies takes the place of its output.
    """

    def __init__(self, decoder: FairseqDecoder, encoder_out: Tensor, kept: Tensor) -> None:
        """Prepare.

        Args:
            decoder: A fairseq Transformer decoder (``decoder.layers``), in evaluation mode.
            encoder_out: ``(T', d)``, not occluded.
            kept: ``(n, T')`` booleans, false where occluded.
        """
        super().__init__(decoder)
        self._encoder_out = encoder_out
        self._kept = kept
        self._query: Tensor | None = None

    @property
    def placeholder(self) -> dict[str, list[Tensor]]:
        """An encoder output for the decoder to be called with, of which nothing is read."""
        nothing = self._encoder_out.new_zeros(1, len(self._kept), self._encoder_out.shape[1])
        return {"encoder_out": [nothing], "encoder_padding_mask": []}

    def before(self, module: Any, kwargs: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG002
        """Keep the query; let the module work on next to nothing."""
        query: Tensor = kwargs["query"]
        self._query = query
        nothing = self._encoder_out.new_zeros(1, 1, self._encoder_out.shape[1])
        instead = query.new_zeros(1, 1, query.shape[2])
        return {**kwargs, "query": instead, "key": nothing, "value": nothing}

    def after(self, module: Any, output: Any) -> tuple[Tensor, None]:  # noqa: ARG002
        """Attend to the copies."""
        if self._query is None:
            raise RuntimeError("cross-attention ran without its hook before")
        query = module.q_proj(self._query) * module.scaling
        self._query = None
        key, value = (
            nn.functional.linear(self._encoder_out, projection.weight)
            for projection in (module.k_proj, module.v_proj)
        )
        if query.is_cuda:
            from fbk_xattn.models.cuda.attention import attend_to_shared

            attended = attend_to_shared(query, key, value, self._kept, module.num_heads)
        else:
            attended = _attend(query, key, value, self._kept, module.num_heads)
        if module.v_proj.bias is not None:
            attended = attended + module.v_proj.bias
        return module.out_proj(attended), None


def _attend(query: Tensor, key: Tensor, value: Tensor, kept: Tensor, heads: int) -> Tensor:
    """Do as :func:`fbk_xattn.models.cuda.attention.attend_to_shared`, on any device."""
    factor = kept.to(query.dtype)[:, None, None, :]
    # (S, n, d) to (n, H, S, d / H); keys and values (H, T', d / H).
    query = query.unflatten(2, (heads, -1)).permute(1, 2, 0, 3)
    key, value = (x.unflatten(1, (heads, -1)).transpose(0, 1) for x in (key, value))
    scores = torch.matmul(query, key.transpose(1, 2)) * factor
    weights = scores.softmax(dim=-1, dtype=torch.float32).to(query.dtype)
    return torch.matmul(weights * factor, value).permute(2, 0, 1, 3).flatten(2)
