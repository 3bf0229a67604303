"""Layer norms and gated linear units without gradients, a row at a time."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from fbk_xattn.models.cuda.activations import sigmoid


@triton.jit
def _norm(value, weight, bias, column, dim, eps):
    """Normalise rows in float32."""
    inside = column < dim
    mean = tl.sum(tl.where(inside, value, 0.0), axis=1) / dim
    centred = tl.where(inside, value - mean[:, None], 0.0)
    variance = tl.sum(centred * centred, axis=1) / dim
    scale = tl.load(weight + column, mask=inside, other=0.0)
    shift = tl.load(bias + column, mask=inside, other=0.0)
    return centred * tl.rsqrt(variance + eps)[:, None] * scale + shift


@triton.jit(do_not_specialize=["n_rows"])
def _normalise(
    x,
    offset,
    final_weight,
    final_bias,
    weight,
    bias,
    result,
    n_rows,
    dim,
    eps,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    FINAL: tl.constexpr,
):
    """Some rows: add the offset, normalise; with a layer norm before it that is kept in place."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    column = tl.arange(0, COLUMNS)[None, :]
    inside = (row < n_rows) & (column < dim)
    value = tl.load(x + row * dim + column, mask=inside, other=0.0).to(tl.float32)
    value += tl.load(offset + column, mask=column < dim, other=0.0)
    if FINAL:
        value = _norm(value, final_weight, final_bias, column, dim, eps)
        tl.store(x + row * dim + column, value, mask=inside)
    value = _norm(value, weight, bias, column, dim, eps)
    tl.store(result + row * dim + column, value, mask=inside)


def normalise(
    x: Tensor,
    offset: Tensor,
    norm: Tensor,
    eps: float,
    final: Tensor | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Return the layer norm of ``x + offset``.

    Args:
        x: ``(n, d)``, contiguous.
        offset: ``(d,)`` in float32.
        norm: ``(2, d)`` in float32: weight and bias.
        eps: Of the layer norms.
        final: ``(2, d)`` of a layer norm to apply first, whose result replaces ``x``.
        dtype: Of the result (default: that of ``x``).

    Returns:
        ``(n, d)``.
    """
    n_rows, dim = x.shape
    result = torch.empty_like(x, dtype=dtype)
    columns = triton.next_power_of_2(dim)
    rows = 2
    _normalise[(triton.cdiv(n_rows, rows),)](
        x,
        offset,
        *(norm if final is None else final),
        *norm,
        result,
        n_rows,
        dim,
        eps,
        ROWS=rows,
        COLUMNS=columns,
        FINAL=final is not None,
        num_warps=max(1, columns // 512),
    )
    return result


@triton.jit
def _gate(x, bias, result, dim, BLOCK: tl.constexpr):
    """Some elements of a row: the first half times the sigmoid of the second, both with a bias."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < dim
    linear = tl.load(x + row * 2 * dim + column, mask=inside, other=0.0).to(tl.float32)
    gate = tl.load(x + row * 2 * dim + dim + column, mask=inside, other=0.0).to(tl.float32)
    linear += tl.load(bias + column, mask=inside, other=0.0)
    gate += tl.load(bias + dim + column, mask=inside, other=0.0)
    tl.store(result + row * dim + column, linear * sigmoid(gate), mask=inside)


def gated(x: Tensor, bias: Tensor) -> Tensor:
    """Return the gated linear unit ``(..., d)`` of ``x + bias``.

    Args:
        x: ``(..., 2 d)``, contiguous.
        bias: ``(2 d,)`` in float32.
    """
    dim = x.shape[-1] // 2
    result = x.new_empty(*x.shape[:-1], dim)
    block = min(1024, triton.next_power_of_2(dim))
    _gate[(result.numel() // dim, triton.cdiv(dim, block))](x, bias, result, dim, BLOCK=block)
    return result
