"""Linear layers as the published system begins training with them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

# Elements by which the sizes of half-precision products divide where tensor cores are fast.
_TENSOR_CORE_MULTIPLE = 8


def linear(inputs: int, outputs: int, bias: bool = True) -> nn.Linear:
    """Return a linear layer with Xavier-uniform weights and a zero bias."""
    return _initialise(nn.Linear(inputs, outputs, bias=bias))


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
        missing = -self.out_features % _TENSOR_CORE_MULTIPLE
        if not missing or not x.is_cuda or x.dtype not in (torch.float16, torch.bfloat16):
            return super().forward(x)
        weight = functional.pad(self.weight, (0, 0, 0, missing))
        bias = functional.pad(self.bias, (0, missing))
        return functional.linear(x, weight, bias)[..., : self.out_features]


def _initialise(layer: nn.Linear) -> nn.Linear:
    nn.init.xavier_uniform_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
