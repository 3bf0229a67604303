"""Batch norm over the batches of all processes, on CPUs too."""

from __future__ import annotations

import torch
from torch import Tensor, distributed, nn
from torch.distributed.nn.functional import all_reduce


class SynchronisedBatchNorm(nn.SyncBatchNorm):
    """torch's synchronised batch norm, which it has for CUDA devices only.

    In training, mean and variance are those of the batches of all processes together; a process
    alone, and evaluation, need no others.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor
    momentum: float

    def forward(self, x: Tensor) -> Tensor:
        """Normalise each channel of ``(N, C)``."""
        together = self.training and distributed.is_available() and distributed.is_initialized()
        if x.is_cuda or not together:
            return super().forward(x)
        # Two sums, not one of squares, which would round away a variance far below the mean.
        values = x.float()
        count = all_reduce(values.new_tensor([len(x)])).detach()
        mean = all_reduce(values.sum(dim=0)) / count
        centred = values - mean
        variance = all_reduce(centred.square().sum(dim=0)) / count
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean.to(x.dtype), self.momentum)
            self.running_var.lerp_((variance * count / (count - 1)).to(x.dtype), self.momentum)
        return self.weight * (centred * (variance + self.eps).rsqrt()).to(x.dtype) + self.bias
