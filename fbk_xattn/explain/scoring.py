"""How much occlusion changed the distribution of each token."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor
from torch.nn import functional


class Scorer(Protocol):
    """Compares distributions before and after occlusion."""

    def __call__(self, original: Tensor, occluded: Tensor) -> Tensor:
        """Return scores ``(n, S)`` from logits ``(S, V)`` and ``(n, S, V)``."""


def kl_divergence(original: Tensor, occluded: Tensor) -> Tensor:
    """Return ``sum_v p_v (log p_v - log q_v)`` in nats, at least 0 but for rounding.

    ``p`` is the original and ``q`` the occluded distribution. Computed from logits in float32, so
    a ``q`` too small for a float gives a large score and never infinity (SPES, Fucci et al. 2024).
    """
    log_p = functional.log_softmax(original.float(), dim=-1)
    log_q = functional.log_softmax(occluded.float(), dim=-1)
    return (log_p.exp() * (log_p - log_q)).sum(dim=-1)
