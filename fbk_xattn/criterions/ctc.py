"""The CTC loss, from the scores of the symbols of each target alone."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

# Encoder steps whose log-softmax over the vocabulary is held at a time, in single precision.
_STEPS_AT_ONCE = 64


def ctc_loss(
    logits: Tensor, lengths: Tensor, targets: Tensor, target_lengths: Tensor, blank: int
) -> Tensor:
    """Return the CTC loss (natural log), summed over the batch (Graves et al. 2006).

    The lattice of an utterance reads the log-probabilities of its own target's symbols and of the
    blank, a hundred instead of thousands. So nothing of the size of ``logits`` is kept in single
    precision, and the sums over the vocabulary are two passes over ``logits``.

    Args:
        logits: ``(T', B, V + 1)``.
        lengths: ``(B,)`` encoder steps of each utterance.
        targets: ``(B, U)`` padded token indices.
        target_lengths: ``(B,)``.
        blank: Index of the blank.

    Returns:
        Scalar. An utterance without an alignment (see :func:`count_unalignable`) adds 0.
    """
    columns = functional.pad(targets, (1, 0), value=blank)
    # Equal symbols of a target are one class of its lattice, named by where it first occurs.
    classes = (columns.unsqueeze(2) == columns.unsqueeze(1)).int().argmax(dim=2)
    loss: Tensor = _CTCLoss.apply(logits, lengths, columns, classes, target_lengths)
    return loss


def count_unalignable(lengths: Tensor, targets: Tensor, target_lengths: Tensor) -> Tensor:
    """Count the utterances that have no alignment: fewer steps than symbols, plus repeats.

    Args:
        lengths: ``(B,)`` encoder steps of each utterance.
        targets: ``(B, U)`` padded token indices.
        target_lengths: ``(B,)``.

    Returns:
        Scalar. Between two equal symbols an alignment needs a blank, hence one more step.
    """
    position = torch.arange(targets.shape[1], device=targets.device)[1:]
    repeats = (targets[:, 1:] == targets[:, :-1]) & (position < target_lengths.unsqueeze(1))
    return (lengths < target_lengths + repeats.sum(dim=1)).sum()


class _CTCLoss(torch.autograd.Function):
    """torch's CTC on some columns of a log-softmax, with the gradient by all of them."""

    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        lengths: Tensor,
        columns: Tensor,
        classes: Tensor,
        target_lengths: Tensor,
    ) -> Tensor:
        """Return the loss.

        Args:
            ctx: Of autograd.
            logits: ``(T', B, V + 1)``.
            lengths: ``(B,)``.
            columns: ``(B, 1 + U)`` indices into the last dimension: blank, target.
            classes: ``(B, 1 + U)`` the first column that holds the same symbol.
            target_lengths: ``(B,)``.
        """
        log_probs, normalisers = _log_probs(logits, columns)
        dtype = log_probs.dtype
        with torch.enable_grad():
            log_probs.requires_grad_()
            losses = functional.ctc_loss(
                log_probs,
                classes[:, 1:],
                lengths,
                target_lengths,
                blank=0,
                reduction="none",
                zero_infinity=True,
            )
            (gradient,) = torch.autograd.grad(losses.sum(), log_probs)
        # What torch calls the gradient by the log-probabilities is that by the logits: the
        # probability less the share of alignments that pass here. Its way back through the
        # log-softmax takes off what rounding left of the sum over all symbols, which is 0.
        step = torch.arange(logits.shape[0], device=logits.device).unsqueeze(1)
        counts = ((step < lengths) & (losses != 0)).to(dtype)
        probs = log_probs.detach().exp()
        once = classes == torch.arange(classes.shape[1], device=classes.device)
        rest = counts * (1 + ((gradient - probs) * once).sum(dim=2))
        gradient -= probs * rest.unsqueeze(2)
        ctx.save_for_backward(logits, columns, normalisers, classes, counts - rest, gradient)
        return losses.detach().sum()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradient by ``logits``: the probability where no alignment passes."""
        logits, columns, normalisers, classes, elsewhere, gradient = ctx.saved_tensors
        (scale,) = gradients
        on_columns = gradient.gather(2, classes.unsqueeze(0).expand_as(gradient)) * scale
        if normalisers is not None:
            from fbk_xattn.criterions.cuda import gradient_by_logits

            elsewhere = elsewhere * scale
            by_logits = gradient_by_logits(logits, columns, normalisers, elsewhere, on_columns)
            return by_logits, None, None, None, None
        by_logits = functional.softmax(logits, dim=-1)
        by_logits.mul_((scale * elsewhere).unsqueeze(2))
        everywhere = columns.unsqueeze(0).expand_as(gradient)
        by_logits.scatter_(2, everywhere, on_columns.to(logits.dtype))
        return by_logits, None, None, None, None


def _log_probs(logits: Tensor, columns: Tensor) -> tuple[Tensor, Tensor | None]:
    """Return the log-softmax ``(T', B, 1 + U)`` at the columns ``(B, 1 + U)`` of each utterance.

    And, on a CUDA device, the logarithms ``(T', B)`` that it divides by.
    """
    if logits.is_cuda and logits.dtype != torch.float64:
        from fbk_xattn.criterions.cuda import log_probs_of_columns

        return log_probs_of_columns(logits, columns)
    dtype = torch.promote_types(logits.dtype, torch.float32)
    everywhere = columns.unsqueeze(0).expand(logits.shape[0], -1, -1)
    parts = zip(logits.split(_STEPS_AT_ONCE), everywhere.split(_STEPS_AT_ONCE), strict=True)
    return torch.cat(
        [functional.log_softmax(x, -1, dtype=dtype).gather(2, own) for x, own in parts]
    ), None
