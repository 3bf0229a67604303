"""Gradients that torch takes many times as long for as reading what they come from takes."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn import functional

# Elements by which rows begin where tensor cores are fast, in half precision.
ALIGNMENT = 8
# Programs that each sum a share of the rows: some for every multiprocessor.
PROGRAMS = 512


@triton.jit(do_not_specialize=["n_rows", "share", "n_columns"])
def _sum_columns(
    x, result, n_rows, share, n_columns, row_stride, ROWS: tl.constexpr, COLUMNS: tl.constexpr
):
    """Some columns of a share of the rows."""
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    first = tl.program_id(0).to(tl.int64) * share
    total = tl.zeros((ROWS, COLUMNS), dtype=tl.float32)
    for block in range(0, share, ROWS):
        row = first + block + tl.arange(0, ROWS)
        inside = (row < n_rows)[:, None] & (column < n_columns)[None, :]
        place = row[:, None] * row_stride + column[None, :]
        total += tl.load(x + place, mask=inside, other=0.0).to(tl.float32)
    target = result + tl.program_id(0) * n_columns + column
    tl.store(target, tl.sum(total, axis=0), mask=column < n_columns)


def sum_columns(x: Tensor) -> Tensor:
    """Return the sums ``(n,)`` in float32 of the columns of ``(m, n)``, rows without gaps."""
    n_rows, n_columns = x.shape
    rows, columns = 16, 128
    blocks = triton.cdiv(n_columns, columns)
    programs, share = _shares(n_rows, rows, max(1, 4 * PROGRAMS // blocks))
    partial = x.new_empty(programs, n_columns, dtype=torch.float32)
    _sum_columns[(programs, blocks)](
        x, partial, n_rows, share, n_columns, x.stride(0), ROWS=rows, COLUMNS=columns
    )
    return partial.sum(dim=0)


@triton.jit(do_not_specialize=["n_rows", "share"])
def _normalise_back(
    gradient,
    x,
    weight,
    mean,
    scale,
    by_x,
    by_weight,
    by_bias,
    n_rows,
    share,
    dim,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """A share of the rows: their gradients, and what they add to those of weight and bias."""
    column = tl.arange(0, COLUMNS)
    first = tl.program_id(0).to(tl.int64) * share
    factor = tl.load(weight + column, mask=column < dim, other=0.0).to(tl.float32)[None, :]
    weight_total = tl.zeros((ROWS, COLUMNS), dtype=tl.float32)
    bias_total = tl.zeros((ROWS, COLUMNS), dtype=tl.float32)
    for block in range(0, share, ROWS):
        row = first + block + tl.arange(0, ROWS)
        inside = (row < n_rows)[:, None] & (column < dim)[None, :]
        place = row[:, None] * dim + column[None, :]
        upstream = tl.load(gradient + place, mask=inside, other=0.0).to(tl.float32)
        value = tl.load(x + place, mask=inside, other=0.0).to(tl.float32)
        centre = tl.load(mean + row, mask=row < n_rows, other=0.0).to(tl.float32)[:, None]
        spread = tl.load(scale + row, mask=row < n_rows, other=0.0).to(tl.float32)[:, None]
        normed = (value - centre) * spread
        weighted = upstream * factor
        along_normed = tl.sum(weighted * normed, axis=1)[:, None] / dim
        along_mean = tl.sum(weighted, axis=1)[:, None] / dim
        result = (weighted - along_mean - normed * along_normed) * spread
        tl.store(by_x + place, result, mask=inside)
        weight_total += upstream * normed
        bias_total += upstream
    target = tl.program_id(0) * dim + column
    tl.store(by_weight + target, tl.sum(weight_total, axis=0), mask=column < dim)
    tl.store(by_bias + target, tl.sum(bias_total, axis=0), mask=column < dim)


class CUDALayerNorm(torch.autograd.Function):
    """torch's layer norm, whose three gradients come from one pass over memory."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        """Normalise ``(..., d)``."""
        x = x.contiguous()
        normed, mean, scale = torch.native_layer_norm(x, weight.shape, weight, bias, eps)
        ctx.save_for_backward(x, weight, mean, scale)
        return normed

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients by input, weight and bias."""
        x, weight, mean, scale = ctx.saved_tensors
        gradient = gradients[0].contiguous()
        dim = len(weight)
        n_rows = x.numel() // dim
        columns = triton.next_power_of_2(dim)
        rows = max(1, 2048 // columns)
        programs, share = _shares(n_rows, rows, PROGRAMS)
        by_x = torch.empty_like(x)
        by_weight, by_bias = x.new_empty(2, programs, dim, dtype=torch.float32).unbind()
        _normalise_back[(programs,)](
            gradient,
            x,
            weight,
            mean,
            scale,
            by_x,
            by_weight,
            by_bias,
            n_rows,
            share,
            dim,
            ROWS=rows,
            COLUMNS=columns,
        )
        return by_x, by_weight.sum(0).to(weight.dtype), by_bias.sum(0).to(weight.dtype), None


class CUDALinear(torch.autograd.Function):
    """torch's linear layer, with a quicker gradient of the bias."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Map ``(..., inputs)`` to ``(..., outputs)``."""
        ctx.save_for_backward(x, weight)
        return functional.linear(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients by input, weight and bias."""
        x, weight = ctx.saved_tensors
        gradient = gradients[0].flatten(0, -2).contiguous()
        return _linear_gradients(ctx, gradient, x, weight)


class CUDAVocabularyProjection(torch.autograd.Function):
    """A linear layer onto a vocabulary, whose size is whatever it is, in half precision.

    It computes some columns more, which makes it three times as fast, and leaves them out.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Map ``(..., inputs)`` to ``(..., outputs)``, not contiguous."""
        ctx.save_for_backward(x, weight)
        missing = -len(weight) % ALIGNMENT
        padded = functional.pad(weight, (0, 0, 0, missing)), functional.pad(bias, (0, missing))
        return functional.linear(x, *padded)[..., : len(weight)]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients by input, weight and bias."""
        x, weight = ctx.saved_tensors
        gradient = gradients[0].flatten(0, -2)
        if gradient.stride(1) != 1 or gradient.stride(0) % ALIGNMENT:
            aligned = functional.pad(gradient, (0, -gradient.shape[1] % ALIGNMENT))
            gradient = aligned[:, : gradient.shape[1]]
        return _linear_gradients(ctx, gradient, x, weight)


def _linear_gradients(
    ctx: Any, gradient: Tensor, x: Tensor, weight: Tensor
) -> tuple[Tensor | None, ...]:
    by_x = (gradient @ weight).view(x.shape) if ctx.needs_input_grad[0] else None
    by_weight = gradient.t() @ x.flatten(0, -2) if ctx.needs_input_grad[1] else None
    by_bias = sum_columns(gradient).to(weight.dtype) if ctx.needs_input_grad[2] else None
    return by_x, by_weight, by_bias


def _shares(n_rows: int, rows: int, programs: int) -> tuple[int, int]:
    """Return how many programs there are to be and how many rows each takes, in whole blocks."""
    blocks = max(1, triton.cdiv(n_rows, rows))
    share = triton.cdiv(blocks, min(programs, blocks)) * rows
    return max(1, triton.cdiv(n_rows, share)), share
