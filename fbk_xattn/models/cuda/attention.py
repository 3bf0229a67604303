"""Attention without gradients in one kernel each: with relative positions, and to shared keys."""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

# Tensor cores multiply blocks of at least so many elements a side.
SMALLEST_BLOCK = 16
# Queries and keys of a tile, and how it is computed; see `scripts/tune_kernels.py`.
RELATIVE_TILE = {"ROWS": 128, "COLUMNS": 32, "num_stages": 3, "num_warps": 4}


@triton.jit(do_not_specialize=["n_utterances", "size"])
def _attend_relatively(
    projected,
    scores,
    content_shift,
    result,
    n_utterances,
    size,
    heads,
    head_dim,
    scores_row,
    scale,
    HEAD: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Some queries of one head of one utterance."""
    # On one axis, the only one without a limit; blocks that share keys are neighbours.
    blocks = tl.cdiv(size, ROWS)
    row = tl.program_id(0) % blocks * ROWS + tl.arange(0, ROWS)
    matrix = tl.program_id(0) // blocks
    utterance = (matrix // heads).to(tl.int64)
    head = matrix % heads
    feature = tl.arange(0, HEAD)
    dim = heads * head_dim
    start = projected + utterance * size * 3 * dim + head * head_dim
    used = (row < size)[:, None] & (feature < head_dim)[None, :]
    query = tl.load(start + row[:, None] * (3 * dim) + feature[None, :], mask=used, other=0.0)
    shift = tl.load(content_shift + head * head_dim + feature, mask=feature < head_dim, other=0.0)
    query = (query.to(tl.float32) + shift[None, :]).to(query.dtype)
    scores += (head * n_utterances + utterance) * size * scores_row
    largest = tl.full((ROWS,), float("-inf"), dtype=tl.float32)
    total = tl.zeros((ROWS,), dtype=tl.float32)
    attended = tl.zeros((ROWS, HEAD), dtype=tl.float32)
    for first in range(0, size, COLUMNS):
        column = first + tl.arange(0, COLUMNS)
        there = (column < size)[:, None] & (feature < head_dim)[None, :]
        place = column[:, None] * (3 * dim) + feature[None, :]
        key = tl.load(start + dim + place, mask=there, other=0.0)
        weight = tl.dot(query, tl.trans(key), input_precision=PRECISION)
        # The relative shift, see `RelativePositions.of`: reading rows that are one score shorter
        # than they are moves each row on by one; what lies beyond the diagonal is a row further.
        r, c = row[:, None], column[None, :]
        place_of_bias = r * (scores_row - 1) + size - 1 + c
        place_of_bias += tl.where(c > r, scores_row - 1 - size, 0)
        wanted = (r < size) & (c < size) & (c != r + 1)
        bias = tl.load(scores + place_of_bias, mask=wanted, other=0.0)
        weight += bias.to(tl.float32)
        weight = tl.where(c < size, weight * scale, float("-inf"))
        larger = tl.maximum(largest, tl.max(weight, axis=1))
        weight = tl.exp2(weight - larger[:, None])
        shrink = tl.exp2(largest - larger)
        total = total * shrink + tl.sum(weight, axis=1)
        value = tl.load(start + 2 * dim + place, mask=there, other=0.0)
        attended = attended * shrink[:, None] + tl.dot(
            weight.to(value.dtype), value, input_precision=PRECISION
        )
        largest = larger
    attended = attended / total[:, None]
    target = result + utterance * size * dim + head * head_dim
    tl.store(target + row[:, None] * dim + feature[None, :], attended, mask=used)


def attend_relatively(
    projected: Tensor, scores: Tensor, content_shift: Tensor, heads: int, scale: float
) -> Tensor:
    """Attend with relative positions, utterances all of one length.

    Args:
        projected: ``(B, L, 3 d)``: queries with the position bias, keys and values.
        scores: ``(H, B, L, P)`` with ``P`` at least ``L``: products of the queries and positions 0
            to ``L - 1``, neither shifted nor scaled.
        content_shift: ``(d,)`` in float32: content bias minus position bias.
        heads: ``H``.
        scale: Of the sum of both products.

    Returns:
        ``(B, L, d)``.
    """
    n_utterances, size, width = projected.shape
    dim = width // 3
    result = projected.new_empty(n_utterances, size, dim)
    blocks = triton.cdiv(size, RELATIVE_TILE["ROWS"])
    _attend_relatively[(blocks * n_utterances * heads,)](
        projected,
        scores,
        content_shift,
        result,
        n_utterances,
        size,
        heads,
        dim // heads,
        scores.shape[3],
        scale / math.log(2),
        HEAD=_block(dim // heads),
        PRECISION=_precision(projected),
        **RELATIVE_TILE,
    )
    return result


@triton.jit(do_not_specialize=["n_tokens", "n_copies", "size"])
def _attend_to_shared(
    query,
    key,
    value,
    kept,
    result,
    n_tokens,
    n_copies,
    size,
    heads,
    head_dim,
    HEAD: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Some queries of one head of one copy."""
    blocks = tl.cdiv(n_tokens, ROWS)
    row = tl.program_id(0) % blocks * ROWS + tl.arange(0, ROWS)
    matrix = tl.program_id(0) // blocks
    copy = (matrix // heads).to(tl.int64)
    head = matrix % heads
    feature = tl.arange(0, HEAD)
    dim = heads * head_dim
    used = (row < n_tokens)[:, None] & (feature < head_dim)[None, :]
    place = (row[:, None].to(tl.int64) * n_copies + copy) * dim + head * head_dim + feature[None, :]
    own = tl.load(query + place, mask=used, other=0.0)
    largest = tl.full((ROWS,), float("-inf"), dtype=tl.float32)
    total = tl.zeros((ROWS,), dtype=tl.float32)
    attended = tl.zeros((ROWS, HEAD), dtype=tl.float32)
    for first in range(0, size, COLUMNS):
        step = first + tl.arange(0, COLUMNS)
        there = (step < size)[:, None] & (feature < head_dim)[None, :]
        source = step[:, None] * dim + head * head_dim + feature[None, :]
        keep = tl.load(kept + copy * size + step, mask=step < size, other=0).to(tl.float32)[None, :]
        keys = tl.load(key + source, mask=there, other=0.0)
        weight = tl.dot(own, tl.trans(keys), input_precision=PRECISION) * keep
        weight = tl.where((step < size)[None, :], weight * 1.4426950408889634, float("-inf"))
        larger = tl.maximum(largest, tl.max(weight, axis=1))
        weight = tl.exp2(weight - larger[:, None])
        shrink = tl.exp2(largest - larger)
        total = total * shrink + tl.sum(weight, axis=1)
        values = tl.load(value + source, mask=there, other=0.0)
        attended = attended * shrink[:, None] + tl.dot(
            (weight * keep).to(values.dtype), values, input_precision=PRECISION
        )
        largest = larger
    tl.store(result + place, attended / total[:, None], mask=used)


def attend_to_shared(query: Tensor, key: Tensor, value: Tensor, kept: Tensor, heads: int) -> Tensor:
    """Attend from many copies to one sequence of keys and values, with steps of it occluded.

    Args:
        query: ``(S, n, d)``, scaled.
        key: ``(T', d)``, without bias.
        value: ``(T', d)``, without bias.
        kept: ``(n, T')`` booleans; where false, key and value count as zeros.
        heads: That ``d`` is split into.

    Returns:
        ``(S, n, d)``.
    """
    n_tokens, n_copies, dim = query.shape
    query, kept = query.contiguous(), kept.contiguous()
    result = torch.empty_like(query)
    rows = min(64, _block(n_tokens))
    _attend_to_shared[(triton.cdiv(n_tokens, rows) * n_copies * heads,)](
        query,
        key.contiguous(),
        value.contiguous(),
        kept,
        result,
        n_tokens,
        n_copies,
        len(key),
        heads,
        dim // heads,
        HEAD=_block(dim // heads),
        ROWS=rows,
        COLUMNS=64,
        PRECISION=_precision(query),
    )
    return result


def _block(size: int) -> int:
    return max(SMALLEST_BLOCK, triton.next_power_of_2(size))


def _precision(x: Tensor) -> str:
    """Return how to multiply: float32 as such and not as TF32, which has 10 bits of mantissa."""
    return "ieee" if x.dtype == torch.float32 else "tf32"
