"""What kernels ask of a GPU."""

from __future__ import annotations

import torch
from torch import Tensor


def multiprocessors(x: Tensor) -> int:
    """Return how many the GPU of ``x`` has; in Triton's interpreter, one."""
    if not x.is_cuda:
        return 1
    return torch.cuda.get_device_properties(x.device).multi_processor_count
