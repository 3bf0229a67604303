"""Cross-attention to many occluded copies of one encoder output, with one set of keys."""

from __future__ import annotations

from types import TracebackType
from typing import Any

import torch
from fairseq.models import FairseqDecoder
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle


class SharedCrossAttention:
    """Context manager in which a decoder attends to occluded copies of one encoder output.

    An encoder step set to 0 has the biases as its key and value. With ``K'_t = W_k h_t``,
    ``V'_t = W_v h_t`` and ``m_t`` 1 for a kept and 0 for an occluded step, the attention of a copy
    is ``a = softmax_t(m_t q . K'_t)``, as the bias of the key adds the same for all ``t``, and its
    output ``sum_t a_t m_t V'_t + b_v``. So keys and values are computed once, not for each copy.

    Hooks on each layer's ``encoder_attn`` give the module a query of one token to be quick about,
    and put the attention to the copies in place of its output.
    """

    def __init__(self, decoder: FairseqDecoder, encoder_out: Tensor, kept: Tensor) -> None:
        """Prepare.

        Args:
            decoder: A fairseq Transformer decoder (``decoder.layers``), in evaluation mode.
            encoder_out: ``(T', d)``, not occluded.
            kept: ``(n, T')`` booleans, false where occluded.
        """
        self._modules = [layer.encoder_attn for layer in decoder.layers]
        self._encoder_out = encoder_out
        self._kept = kept.to(encoder_out.dtype)[:, None, None, :]
        self._query: Tensor | None = None
        self._handles: list[RemovableHandle] = []

    @property
    def placeholder(self) -> dict[str, list[Tensor]]:
        """An encoder output for the decoder to be called with, of which nothing is read."""
        nothing = self._encoder_out.new_zeros(1, len(self._kept), self._encoder_out.shape[1])
        return {"encoder_out": [nothing], "encoder_padding_mask": []}

    def __enter__(self) -> SharedCrossAttention:
        """Attach the hooks."""
        for module in self._modules:
            self._handles.append(module.register_forward_pre_hook(self._divert, with_kwargs=True))
            self._handles.append(module.register_forward_hook(self._attend))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Remove the hooks."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _divert(
        self,
        module: nn.Module,  # noqa: ARG002 - torch's signature
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        self._query = kwargs["query"]
        nothing = self._encoder_out.new_zeros(1, 1, self._encoder_out.shape[1])
        query = self._query.new_zeros(1, 1, self._query.shape[2])
        return args, {**kwargs, "query": query, "key": nothing, "value": nothing}

    def _attend(
        self,
        module: Any,
        args: tuple[Any, ...],  # noqa: ARG002 - torch's signature
        output: tuple[Tensor, Tensor | None],  # noqa: ARG002
    ) -> tuple[Tensor, None]:
        if self._query is None:
            raise RuntimeError("cross-attention ran without its hook before")
        heads = module.num_heads
        # (S, n, d) to (n, H, S, d / H); keys and values (H, T', d / H).
        query = (module.q_proj(self._query) * module.scaling).unflatten(2, (heads, -1))
        query = query.permute(1, 2, 0, 3)
        key, value = (
            nn.functional.linear(self._encoder_out, projection.weight)
            .unflatten(1, (heads, -1))
            .transpose(0, 1)
            for projection in (module.k_proj, module.v_proj)
        )
        scores = torch.matmul(query, key.transpose(1, 2)) * self._kept
        weights = scores.softmax(dim=-1, dtype=torch.float32).to(query.dtype)
        attended = torch.matmul(weights * self._kept, value)
        attended = attended.permute(2, 0, 1, 3).flatten(2)
        if module.v_proj.bias is not None:
            attended = attended + module.v_proj.bias
        self._query = None
        return module.out_proj(attended), None
