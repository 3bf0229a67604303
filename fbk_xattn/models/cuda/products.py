"""Products of half precision with what follows them inside, for Hopper's tensor cores."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn import functional

from fbk_xattn.models.cuda.rowwise import gated

# Rows, columns and depth of a tile, and how it is computed; see `scripts/tune_kernels.py`.
SWISH_TILE = {"ROWS": 128, "COLUMNS": 128, "DEPTH": 32, "num_stages": 4, "num_warps": 4}
GATED_TILE = {"ROWS": 128, "COLUMNS": 64, "DEPTH": 64, "num_stages": 3, "num_warps": 4}
# With 1,024, cuBLAS and a pass over memory were faster in three cases of four.
MOST_INPUTS = 512
HOPPER = 9


@triton.jit
def _load(start, depth, pointers, DIM: tl.constexpr, DEPTH: tl.constexpr):
    """Load a stretch of the summed dimension; ``depth`` has the shape of this dimension."""
    if DIM % DEPTH == 0:
        return tl.load(pointers + start)
    return tl.load(pointers + start, mask=start + depth < DIM, other=0.0)


@triton.jit(do_not_specialize=["n_rows"])
def _activated_product(
    x,
    weight,
    bias,
    result,
    n_rows,
    SIZE: tl.constexpr,
    DIM: tl.constexpr,
    GATED: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
):
    """One tile of the swish of a product, or of its first half times the sigmoid of its second."""
    # Tiles of the same rows follow each other, so that rows are read once.
    n_tiles: tl.constexpr = (SIZE + COLUMNS - 1) // COLUMNS
    row = tl.program_id(0) // n_tiles * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(0) % n_tiles * COLUMNS + tl.arange(0, COLUMNS)
    along, down = tl.arange(0, DEPTH)[None, :], tl.arange(0, DEPTH)[:, None]
    # Outside rows and columns repeat the last one; they are not stored.
    left = x + tl.minimum(row, n_rows - 1).to(tl.int64)[:, None] * DIM + along
    right = weight + tl.minimum(column, SIZE - 1)[None, :] * DIM + down
    linear = tl.zeros((ROWS, COLUMNS), dtype=tl.float32)
    if GATED:
        gate = tl.zeros((ROWS, COLUMNS), dtype=tl.float32)
    for start in range(0, DIM, DEPTH):
        inputs = _load(start, along, left, DIM, DEPTH)
        linear = tl.dot(inputs, _load(start, down, right, DIM, DEPTH), linear)
        if GATED:
            gate = tl.dot(inputs, _load(start, down, right + SIZE * DIM, DIM, DEPTH), gate)
    linear += tl.load(bias + column, mask=column < SIZE, other=0.0)[None, :]
    if GATED:
        gate += tl.load(bias + SIZE + column, mask=column < SIZE, other=0.0)[None, :]
    else:
        gate = linear
    target = result + row.to(tl.int64)[:, None] * SIZE + column[None, :]
    inside = (row < n_rows)[:, None] & (column < SIZE)[None, :]
    tl.store(target, (linear * tl.sigmoid(gate)).to(result.dtype.element_ty), mask=inside)


def linear_swish(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return swish of ``x`` times the transposed ``weight``, plus ``bias``.

    Args:
        x: ``(n, d)``, contiguous.
        weight: ``(m, d)``, contiguous.
        bias: ``(m,)``, in the precision of ``x``.

    Returns:
        ``(n, m)``.
    """
    if not _has_tiles(x):
        return functional.silu(functional.linear(x, weight, bias), inplace=True)
    return _activated(x, weight, bias, len(weight), SWISH_TILE)


def linear_gated(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return the gated linear unit of ``x`` times the transposed ``weight``, plus ``bias``.

    Args:
        x: ``(n, d)``, contiguous.
        weight: ``(2 m, d)``, contiguous.
        bias: ``(2 m,)`` in float32.

    Returns:
        ``(n, m)``.
    """
    if not _has_tiles(x):
        return gated(functional.linear(x, weight), bias)
    return _activated(x, weight, bias, len(weight) // 2, GATED_TILE)


def _has_tiles(x: Tensor) -> bool:
    """Tell whether our product is the faster one; elsewhere it was not measured."""
    return (
        x.dtype in (torch.float16, torch.bfloat16)
        and x.shape[1] <= MOST_INPUTS
        and torch.cuda.get_device_capability(x.device)[0] == HOPPER
    )


def _activated(x: Tensor, weight: Tensor, bias: Tensor, size: int, tile: dict[str, int]) -> Tensor:
    n_rows, dim = x.shape
    result = x.new_empty(n_rows, size)
    grid = (triton.cdiv(n_rows, tile["ROWS"]) * triton.cdiv(size, tile["COLUMNS"]),)
    gated_too = len(weight) > size
    _activated_product[grid](
        x, weight, bias, result, n_rows, SIZE=size, DIM=dim, GATED=gated_too, **tile
    )
    return result
