"""Padding masks: which steps of a padded batch belong to no utterance."""

from __future__ import annotations

import torch
from torch import Tensor


def length_mask(lengths: Tensor, size: int) -> Tensor:
    """Return ``(B, size)`` booleans, true on padding, from ``(B,)`` lengths."""
    return torch.arange(size, device=lengths.device).unsqueeze(0) >= lengths.unsqueeze(1)


def zero_padding(x: Tensor, mask: Tensor | None, time_dim: int = 1) -> Tensor:
    """Set padding to zero.

    Args:
        x: ``(B, L, C)``, or ``(B, C, L)`` with ``time_dim`` 2.
        mask: ``(B, L)``, true on padding; ``None`` when there is none.
        time_dim: Dimension of ``x`` that is time: 1 or 2.

    Returns:
        ``x`` with zeros where ``mask`` is true.
    """
    if mask is None:
        return x
    return x.masked_fill(mask.unsqueeze(3 - time_dim), 0.0)
