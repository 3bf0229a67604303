"""Linear layers, as the published system begins training with them, and layer norms."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


def linear(inputs: int, outputs: int, bias: bool = True) -> nn.Linear:
    """Return a linear layer with Xavier-uniform weights and a zero bias."""
    return _initialise(Linear(inputs, outputs, bias=bias))


def project(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Map ``(..., inputs)`` to ``(..., outputs)`` by a weight of that shape, transposed."""
    if bias is not None and x.is_cuda and torch.is_grad_enabled():
        from fbk_xattn.models.cuda.gradients import CUDALinear

        return CUDALinear.apply(x, weight, bias)
    return functional.linear(x, weight, bias)


class Linear(nn.Linear):
    """A linear layer whose gradients take less time on a CUDA device."""

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(..., inputs)`` to ``(..., outputs)``."""
        return project(x, self.weight, self.bias)


class LayerNorm(nn.LayerNorm):
    """A layer norm whose gradients take less time on a CUDA device."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``(..., d)``."""
        if x.is_cuda and torch.is_grad_enabled():
            from fbk_xattn.models.cuda.gradients import CUDALayerNorm

            return CUDALayerNorm.apply(x, self.weight, self.bias, self.eps)
        return super().forward(x)


class VocabularyProjection(nn.Linear):
    """A linear layer onto a vocabulary, whose size is whatever it is.

    On CUDA devices in half precision it computes some columns more, which makes it three times as
    fast, and leaves them out of the result.
    """

    def __init__(self, inputs: int, n_symbols: int) -> None:
        """Create it like :func:`linear`."""
        super().__init__(inputs, n_symbols)
        _initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(..., inputs)`` to logits ``(..., n_symbols)``."""
        if not x.is_cuda or x.dtype not in (torch.float16, torch.bfloat16):
            return super().forward(x)
        from fbk_xattn.models.cuda.gradients import CUDAVocabularyProjection

        return CUDAVocabularyProjection.apply(x, self.weight, self.bias)


def _initialise(layer: nn.Linear) -> nn.Linear:
    nn.init.xavier_uniform_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
