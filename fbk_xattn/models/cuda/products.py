"""Products of half precision with what follows them inside, for Hopper's tensor cores."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn import functional

from fbk_xattn.models.cuda.activations import sigmoid
from fbk_xattn.models.cuda.device import multiprocessors
from fbk_xattn.models.cuda.rowwise import gated

try:
    from triton.tools.tensor_descriptor import TensorDescriptor
except ImportError:  # Triton before 3.4
    TensorDescriptor = None

# Rows, columns and depth of a tile, and how it is computed; see `scripts/tune_kernels.py`.
SWISH_TILE = {
    "ROWS": 128, "COLUMNS": 128, "DEPTH": 64, "FLATTEN": 1, "num_stages": 3, "num_warps": 4
}  # fmt: skip
GATED_TILE = {
    "ROWS": 128, "COLUMNS": 64, "DEPTH": 64, "FLATTEN": 0, "num_stages": 3, "num_warps": 4
}  # fmt: skip
# Programs for each multiprocessor: one has its products while the other finishes a tile.
PROGRAMS = 2
# With 1,024, cuBLAS and a pass over memory were faster in three cases of four, before tiles came in
# descriptors.
MOST_INPUTS = 512
HOPPER = 9
# Bytes by which rows begin that its tensor memory accelerator moves.
ALIGNMENT = 16


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
    FLATTEN: tl.constexpr,
):
    """Tiles of the swish of a product, or of its first half times the sigmoid of its second."""
    # Tiles of the same rows follow each other, so that rows are read once.
    across: tl.constexpr = (SIZE + COLUMNS - 1) // COLUMNS
    n_tiles = tl.cdiv(n_rows, ROWS) * across
    for tile in tl.range(tl.program_id(0), n_tiles, tl.num_programs(0), flatten=FLATTEN != 0):
        row, column = tile // across * ROWS, tile % across * COLUMNS
        linear = tl.zeros((ROWS, COLUMNS), dtype=tl.float32)
        if GATED:
            gate = tl.zeros((ROWS, COLUMNS), dtype=tl.float32)
        for start in range(0, DIM, DEPTH):
            inputs = x.load([row, start])
            linear = tl.dot(inputs, weight.load([column, start]).T, linear)
            if GATED:
                gate = tl.dot(inputs, weight.load([SIZE + column, start]).T, gate)
        place = column + tl.arange(0, COLUMNS)
        linear += tl.load(bias + place, mask=place < SIZE, other=0.0)[None, :]
        if GATED:
            gate += tl.load(bias + SIZE + place, mask=place < SIZE, other=0.0)[None, :]
        else:
            gate = linear
        # In halves, for which there is room beside the inputs of another program.
        both = tl.reshape((linear * sigmoid(gate)).to(result.dtype), (ROWS, 2, COLUMNS // 2))
        first, second = tl.split(tl.permute(both, (0, 2, 1)))
        result.store([row, column], first)
        result.store([row, column + COLUMNS // 2], second)


def linear_swish(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return swish of ``x`` times the transposed ``weight``, plus ``bias``.

    Args:
        x: ``(n, d)``, contiguous.
        weight: ``(m, d)``, contiguous.
        bias: ``(m,)``, in the precision of ``x``.

    Returns:
        ``(n, m)``.
    """
    if not _has_tiles(x, weight):
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
    if not _has_tiles(x, weight):
        return gated(functional.linear(x, weight), bias)
    return _activated(x, weight, bias, len(weight) // 2, GATED_TILE)


def _has_tiles(x: Tensor, weight: Tensor) -> bool:
    """Tell whether our product is the faster one; elsewhere it was not measured."""
    return (
        TensorDescriptor is not None
        and x.dtype in (torch.float16, torch.bfloat16)
        and x.shape[1] <= MOST_INPUTS
        and all(size * x.itemsize % (2 * ALIGNMENT) == 0 for size in weight.shape)
        and torch.cuda.get_device_capability(x.device)[0] == HOPPER
    )


def _activated(x: Tensor, weight: Tensor, bias: Tensor, size: int, tile: dict[str, int]) -> Tensor:
    n_rows, dim = x.shape
    result = x.new_empty(n_rows, size)
    rows, columns, depth = tile["ROWS"], tile["COLUMNS"], tile["DEPTH"]
    n_tiles = triton.cdiv(n_rows, rows) * triton.cdiv(size, columns)
    _activated_product[(min(n_tiles, PROGRAMS * multiprocessors(x)),)](
        TensorDescriptor.from_tensor(x, [rows, depth]),
        TensorDescriptor.from_tensor(weight, [columns, depth]),
        bias,
        TensorDescriptor.from_tensor(result, [rows, columns // 2]),
        n_rows,
        SIZE=size,
        DIM=dim,
        GATED=len(weight) > size,
        **tile,
    )
    return result
