"""Multi-head self-attention with relative positions, independent of padding."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from fbk_xattn.errors import InputError

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
        shift_index: ``(B, L * L)`` where in the flattened ``(L, L)`` position scores each shifted
            score comes from, or ``None`` when no utterance is padded.
        shift_zero: ``(L, L)``, true where the shift brings in a zero column.
        padding: ``(B, L)``, true on padding, or ``None``.
    """

    table: Tensor
    shift_index: Tensor | None
    shift_zero: Tensor
    padding: Tensor | None

    @classmethod
    def of(cls, table: Tensor, lengths: Tensor | None, padding: Tensor | None) -> RelativePositions:
        """Prepare the shift for utterances of ``lengths`` steps (``None``: all have ``L``).

        The shift of an utterance of ``n`` steps prepends a zero column to its ``(n, n)`` position
        scores, reads them as ``(n + 1, n)`` and drops the first row (Dai et al. 2019, appendix B).
        Row ``i``, column ``j`` thus holds score ``(i, n - 1 - i + j)`` for ``j <= i``, zero for
        ``j = i + 1`` and score ``(i + 1, j - i - 2)`` beyond. ``n`` is the utterance's own length,
        so the result does not depend on the padding.
        """
        size = table.shape[0]
        step = torch.arange(size, device=table.device)
        i, j = step.unsqueeze(1), step.unsqueeze(0)
        shift_zero = j == i + 1
        if lengths is None:
            return cls(table, None, shift_zero, None)
        row = torch.where(j <= i, i, i + 1).clamp(max=size - 1)
        own = lengths.view(-1, 1, 1) - 1 - i + j
        column = torch.where(j <= i, own, j - i - 2).clamp(0, size - 1)
        return cls(table, (row * size + column).flatten(1), shift_zero, padding)

    def shift(self, scores: Tensor) -> Tensor:
        """Shift position scores ``(B, H, L, L)``; beyond a length they are arbitrary."""
        n_utterances, heads, size, _ = scores.shape
        if self.shift_index is None:
            padded = functional.pad(scores, (1, 0))
            return padded.view(n_utterances, heads, size + 1, size)[:, :, 1:]
        index = self.shift_index.unsqueeze(1).expand(-1, heads, -1)
        shifted = scores.flatten(2).gather(2, index).view_as(scores)
        return shifted.masked_fill(self.shift_zero, 0.0)


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
            raise InputError(f"encoder dimension {dim} is not a multiple of {heads} heads")
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
        query = self._split(self.query_proj(x))
        key = self._split(self.key_proj(x))
        value = self._split(self.value_proj(x))
        position = self._split(self.pos_proj(positions.table).unsqueeze(0))
        scores = torch.matmul(query + self.v_bias.unsqueeze(1), position.transpose(2, 3))
        bias = positions.shift(scores * self.scale)
        if positions.padding is not None:
            bias = bias.masked_fill(positions.padding[:, None, None, :], float("-inf"))
        attended = functional.scaled_dot_product_attention(
            query + self.u_bias.unsqueeze(1),
            key,
            value,
            attn_mask=bias,
            dropout_p=self.dropout if self.training else 0.0,
            scale=self.scale,
        )
        return self.out_proj(attended.transpose(1, 2).flatten(2))

    def _split(self, x: Tensor) -> Tensor:
        """``(B, L, d)`` to ``(B, H, L, d / H)``."""
        return x.unflatten(2, (self.heads, -1)).transpose(1, 2)


def linear(inputs: int, outputs: int, bias: bool = True) -> nn.Linear:
    """Return a linear layer with Xavier-uniform weights and a zero bias."""
    layer = nn.Linear(inputs, outputs, bias=bias)
    nn.init.xavier_uniform_(layer.weight)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer
