"""Cross-attention weights of every decoder layer and head, taken while the decoder runs."""

from __future__ import annotations

from types import TracebackType
from typing import Any

import torch
from fairseq.models import FairseqDecoder
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle


class CrossAttentionRecorder:
    """Context manager that records the cross-attention of one decoder pass.

    fairseq's speech-to-text decoders drop their attention weights, so they are taken where they are
    computed: hooks on each layer's ``encoder_attn`` ask for the weights of every head and keep
    them. Logits are unchanged.

    Example:
        >>> with CrossAttentionRecorder(model.decoder) as recorder:  # doctest: +SKIP
        ...     model.decoder(prev_output_tokens, encoder_out=encoder_out)
        >>> recorder.cross_attention().shape  # doctest: +SKIP
    """

    def __init__(self, decoder: FairseqDecoder) -> None:
        """Prepare for ``decoder``, a fairseq Transformer decoder (``decoder.layers``)."""
        self._modules = [layer.encoder_attn for layer in decoder.layers]
        self._weights: list[Tensor | None] = [None] * len(self._modules)
        self._handles: list[RemovableHandle] = []

    def __enter__(self) -> CrossAttentionRecorder:
        """Attach the hooks."""
        for number, module in enumerate(self._modules):
            self._handles.append(module.register_forward_pre_hook(_ask, with_kwargs=True))
            self._handles.append(module.register_forward_hook(self._keep(number)))
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

    def cross_attention(self) -> Tensor:
        """Return the weights ``(B, L, H, S, T')`` of the last pass; rows sum to 1.

        Raises:
            RuntimeError: No pass was recorded.
        """
        if any(weights is None for weights in self._weights):
            raise RuntimeError("no decoder pass was recorded")
        # Each is (H, B, S, T').
        return torch.stack([w for w in self._weights if w is not None]).permute(2, 0, 1, 3, 4)

    def _keep(self, number: int) -> Any:
        def hook(module: nn.Module, inputs: Any, output: tuple[Tensor, Tensor]) -> None:  # noqa: ARG001
            self._weights[number] = output[1].detach()

        return hook


def _ask(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:  # noqa: ARG001
    return args, {**kwargs, "need_weights": True, "need_head_weights": True}
