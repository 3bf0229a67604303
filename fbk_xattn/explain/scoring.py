"""How much occlusion changed the distribution of each token."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor
from torch.nn import functional

from fbk_xattn.explain.utterance import Utterance


class Scorer(Protocol):
    """Compares distributions before and after occlusion."""

    def __call__(self, utterance: Utterance, occluded: Tensor) -> Tensor:
        """Return the score of each token under each mask.

        Args:
            utterance: With the original ``logits`` ``(S, V)`` and the ``tokens`` ``(S,)``.
            occluded: Logits ``(n, S, V)`` of the occluded copies, in any precision.

        Returns:
            ``(n, S)``, float32: the more a token suffers from the occlusion, the higher.
        """


def kl_divergence(utterance: Utterance, occluded: Tensor) -> Tensor:
    """Return ``sum_v p_v (log p_v - log q_v)`` in nats, at least 0 but for rounding.

    ``p`` is the original and ``q`` the occluded distribution. Computed from logits in float32, so
    a ``q`` too small for a float gives a large score and never infinity (SPES, Fucci et al. 2024,
    arXiv:2411.01710). See :class:`Scorer` for the shapes.

    Example:
        >>> from types import SimpleNamespace
        >>> import torch
        >>> utterance = SimpleNamespace(logits=torch.tensor([[0.0, 0.0]]))
        >>> kl_divergence(utterance, torch.tensor([[[0.0, 0.0]], [[0.0, -1000.0]]])).round()
        tensor([[  0.],
                [499.]])
    """
    log_p = functional.log_softmax(utterance.logits.float(), dim=-1)
    if occluded.is_cuda:
        from fbk_xattn.explain.cuda import divergence

        return divergence(log_p, occluded)
    log_q = functional.log_softmax(occluded.float(), dim=-1)
    return (log_p.exp() * (log_p - log_q)).sum(dim=-1)


def probability_difference(utterance: Utterance, occluded: Tensor) -> Tensor:
    """Return ``p(y_i) - q(y_i)``, the probability that occlusion took from each token, -1 to 1.

    ``p`` is the original and ``q`` the occluded distribution, ``y_i`` the token of the hypothesis.
    Negative where the token is more probable under occlusion. Computed in float32. See
    :class:`Scorer` for the shapes.

    Example:
        >>> from types import SimpleNamespace
        >>> import torch
        >>> utterance = SimpleNamespace(
        ...     tokens=torch.tensor([1]), logits=torch.tensor([[0.2, 0.8]]).log())
        >>> probability_difference(utterance, torch.tensor([[[0.5, 0.5]]]).log())
        tensor([[0.3000]])
    """
    tokens = utterance.tokens.unsqueeze(-1)
    p = functional.softmax(utterance.logits.float(), dim=-1).gather(-1, tokens)
    q = functional.softmax(occluded.float(), dim=-1)
    return (p - q.gather(-1, tokens.expand(len(occluded), -1, -1))).squeeze(-1)


SCORERS: dict[str, Scorer] = {
    "kl": kl_divergence,
    "probability": probability_difference,
}
