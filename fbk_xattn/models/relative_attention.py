"""Multi-head self-attention with relative positions, independent of padding."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from fbk_xattn.errors import InputError
from fbk_xattn.models.projection import linear, project

MAX_STEPS = 10_000


def sinusoids(n_positions: int, dim: int) -> Tensor:
    """Return ``(n_positions, dim)`` sinusoids, sine on even and cosine on odd columns.

    Source: Vaswani et al. 2017, section 3.5.
    """
    positions = torch.arange(n_positions, dtype=torch.float32).unsqueeze(1)
    rates = torch.exp(torch.arange(0, dim, 2, dtype=torch.float32) * (-math.log(10000.0) / dim))
    table = torch.zeros(n_positions, dim)
    table[:, 0::2] = torch.sin(positions * rates)
    table[:, 1::2] = torch.cos(positions * rates)
    return table


class RelativePositions(NamedTuple):
    """What all layers share about the positions of one batch.

    Attributes:
        table: ``(L, d)`` sinusoids of positions 0 to ``L - 1``.
        lengths: ``(B,)`` steps of each utterance, or ``None`` when all have ``L``.
        padding: ``(B, L)``, true on padding, or ``None`` when no utterance is padded. Then, and on
            CUDA devices, which find them as they go, the following are ``None`` too.
        source: ``(B, L * L)`` where in the flattened ``(L, L)`` position scores each shifted score
            comes from.
        target: ``(B, L * L)`` the inverse: where each position score goes.
        has_source: ``(L, L)``, 0 where the shift brings in a zero, else 1.
        has_target: ``(B, L * L)``, false where a position score goes nowhere.
        mask: ``(B, 1, L)``, minus infinity on padding, else 0.
    """

    table: Tensor
    lengths: Tensor | None = None
    padding: Tensor | None = None
    source: Tensor | None = None
    target: Tensor | None = None
    has_source: Tensor | None = None
    has_target: Tensor | None = None
    mask: Tensor | None = None

    @classmethod
    def of(cls, table: Tensor, lengths: Tensor | None, padding: Tensor | None) -> RelativePositions:
        """Prepare the shift for utterances of ``lengths`` steps (``None``: all have ``L``).

        The shift of an utterance of ``n`` steps prepends a zero column to its ``(n, n)`` position
        scores, reads them as ``(n + 1, n)`` and drops the first row (Dai et al. 2019, appendix B).
        Row ``i``, column ``j`` thus holds score ``(i, n - 1 - i + j)`` for ``j <= i``, zero for
        ``j = i + 1`` and score ``(i + 1, j - i - 2)`` beyond. ``n`` is the utterance's own length,
        so the result does not depend on the padding.
        """
        if lengths is None or padding is None or table.is_cuda:
            return cls(table, lengths, padding)
        size = table.shape[0]
        step = torch.arange(size, device=table.device)
        n, row, column = lengths.view(-1, 1, 1), step.unsqueeze(1), step.unsqueeze(0)
        near = column <= row
        source_row = torch.where(near, row, row + 1)
        source_column = torch.where(near, n - 1 - row + column, column - row - 2)
        # The other way round: of row r, the last r + 1 scores stay, the others go up one row.
        stays = column >= n - 1 - row
        target_row = torch.where(stays, row, row - 1)
        target_column = torch.where(stays, column - (n - 1) + row, column + row + 1)
        has_target = (row < n) & (column < n) & (target_row >= 0)
        return cls(
            table,
            lengths,
            padding,
            _flat_index(source_row, source_column, size),
            _flat_index(target_row, target_column, size),
            (column != row + 1).to(table.dtype),
            has_target.flatten(1),
            torch.zeros_like(padding, dtype=table.dtype)
            .masked_fill(padding, float("-inf"))
            .unsqueeze(1),
        )

    def lengths_or_all(self, x: Tensor) -> Tensor:
        """Return ``(B,)`` steps of the utterances of ``(B, L, ...)``."""
        if self.lengths is not None:
            return self.lengths
        return torch.full((x.shape[0],), x.shape[1], device=x.device)

    def attention_bias(self, scores: Tensor) -> Tensor:
        """Return shifted position scores, minus infinity on padding.

        Args:
            scores: ``(H, B, L, L)``, of each query (row) with each position (column).

        Returns:
            ``(H, B, L, L)``, of each query with each key; rows beyond a length are arbitrary.
        """
        heads, n_utterances, size, _ = scores.shape
        if scores.is_cuda:
            from fbk_xattn.models.cuda.relative_shift import CUDAShift

            return CUDAShift.apply(scores, self.lengths_or_all(scores[0]))
        if self.padding is None:
            padded = functional.pad(scores, (1, 0))
            return padded.view(heads, n_utterances, size + 1, size)[:, :, 1:]
        return _ShiftWithPadding.apply(scores, *self[3:])


def _flat_index(row: Tensor, column: Tensor, size: int) -> Tensor:
    """Return ``(B, size * size)`` indices into a flattened ``(size, size)``, kept within it."""
    index: Tensor = row.clamp(0, size - 1) * size + column.clamp(0, size - 1)
    return index.flatten(1)


class _ShiftWithPadding(torch.autograd.Function):
    """The relative shift as a gather, in either direction.

    autograd's own way back through a gather adds up atomically, though no score is used twice.
    """

    @staticmethod
    def forward(
        ctx: Any,
        scores: Tensor,
        source: Tensor,
        target: Tensor,
        has_source: Tensor,
        has_target: Tensor,
        mask: Tensor,
    ) -> Tensor:
        """Shift ``(H, B, L, L)``; the others are of :class:`RelativePositions`."""
        ctx.save_for_backward(target, has_target)
        shifted = scores.flatten(2).gather(2, source.expand(scores.shape[0], -1, -1))
        return torch.addcmul(mask, shifted.view_as(scores), has_source)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Take gradients back to where their scores came from."""
        target, has_target = ctx.saved_tensors
        (gradient,) = gradients
        back = gradient.flatten(2).gather(2, target.expand(gradient.shape[0], -1, -1))
        return (back * has_target).view_as(gradient), None, None, None, None, None


class RelativeMultiHeadAttention(nn.Module):
    """Self-attention whose scores add a content and a relative-position term.

    ``softmax(((q + u) k^T + shift((q + v) (W_pos pe)^T)) / sqrt(d)) v`` with ``d`` the model
    dimension (not the head's), as the published system trains it.
    """

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        """Create the projections.

        Raises:
            InputError: ``dim`` is not a multiple of ``heads``.
        """
        super().__init__()
        if dim % heads:
            raise InputError(
                f"--encoder-attention-heads {heads}: expected a divisor of "
                f"--encoder-embed-dim {dim}"
            )
        self.heads = heads
        self.dropout = dropout
        self.scale = 1.0 / math.sqrt(dim)
        self.query_proj = linear(dim, dim)
        self.key_proj = linear(dim, dim)
        self.value_proj = linear(dim, dim)
        self.pos_proj = linear(dim, dim, bias=False)
        self.out_proj = linear(dim, dim)
        self.u_bias = nn.Parameter(torch.empty(heads, dim // heads))
        self.v_bias = nn.Parameter(torch.empty(heads, dim // heads))
        nn.init.xavier_uniform_(self.u_bias)
        nn.init.xavier_uniform_(self.v_bias)

    def forward(self, x: Tensor, positions: RelativePositions) -> Tensor:
        """Attend.

        Args:
            x: ``(B, L, d)``.
            positions: Of this batch.

        Returns:
            ``(B, L, d)``; what lies beyond an utterance's length is arbitrary.
        """
        projections = (self.query_proj, self.key_proj, self.value_proj)
        projected = project(
            x,
            torch.cat([projection.weight for projection in projections]),
            torch.cat([projection.bias for projection in projections]),
        )
        query, key, value = projected.unflatten(2, (3, self.heads, -1)).unbind(2)
        position = self.pos_proj(positions.table) * self.scale
        # One product for each head, over the steps of all utterances: positions are the same.
        scores = torch.matmul(
            (query + self.v_bias).flatten(0, 1).transpose(0, 1),
            position.unflatten(1, (self.heads, -1)).permute(1, 2, 0),
        ).unflatten(1, x.shape[:2])
        attended = functional.scaled_dot_product_attention(
            (query + self.u_bias).transpose(1, 2),
            key.transpose(1, 2),
            value.transpose(1, 2),
            attn_mask=positions.attention_bias(scores).transpose(0, 1),
            dropout_p=self.dropout if self.training else 0.0,
            scale=self.scale,
        )
        return self.out_proj(attended.transpose(1, 2).flatten(2))
