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


# Where blocks of keys lie, which tells how their biases are found.
BELOW = tl.constexpr(0)  # the diagonal: no key after its query
ACROSS = tl.constexpr(1)
ABOVE = tl.constexpr(2)  # all keys after the one that follows the query
LAST = tl.constexpr(3)  # anywhere, and not whole


@triton.jit
def _bias(scores, query, key, size, scores_row, WHERE: tl.constexpr):
    """Scores after the relative shift, see `RelativePositions.of`.

    Reading rows that are one score shorter than they are moves each row on by one; what lies beyond
    the diagonal is a row further.
    """
    place = query * (scores_row - 1) + size - 1 + key
    further = scores_row - 1 - size
    if WHERE == BELOW:
        return tl.load(scores + place)
    if WHERE == ABOVE:
        return tl.load(scores + place + further)
    place += tl.where(key > query, further, 0)
    if WHERE == LAST:
        bias = tl.load(scores + place, mask=key < size, other=0.0)
    else:
        bias = tl.load(scores + place)
    return tl.where(key == query + 1, 0.0, bias)


@triton.jit
def _attend_to_blocks(
    largest,
    total,
    attended,
    first,
    stop,
    query,
    keys,
    scores,
    row,
    size,
    dim,
    head_dim,
    scores_row,
    scale,
    HEAD: tl.constexpr,
    COLUMNS: tl.constexpr,
    PRECISION: tl.constexpr,
    WHERE: tl.constexpr,
):
    """Go on with the keys from ``first`` to ``stop - 1``, as many at a time as a tile has."""
    feature = tl.arange(0, HEAD)[None, :]
    for start in range(first, stop, COLUMNS):
        column = start + tl.arange(0, COLUMNS)
        place = column[:, None] * (3 * dim) + feature
        there = feature < head_dim
        if WHERE == LAST:
            there = there & (column < size)[:, None]
        key = tl.load(keys + place, mask=there, other=0.0)
        weight = tl.dot(query, tl.trans(key), input_precision=PRECISION)
        weight += _bias(scores, row, column[None, :], size, scores_row, WHERE).to(tl.float32)
        if WHERE == LAST:
            weight = tl.where((column < size)[None, :], weight, float("-inf"))
        larger = tl.maximum(largest, tl.max(weight, axis=1))
        weight = tl.exp2(weight * scale - (larger * scale)[:, None])
        shrink = tl.exp2((largest - larger) * scale)
        total = total * shrink + tl.sum(weight, axis=1)
        value = tl.load(keys + dim + place, mask=there, other=0.0)
        attended = attended * shrink[:, None] + tl.dot(
            weight.to(value.dtype), value, input_precision=PRECISION
        )
        largest = larger
    return largest, total, attended


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
    first_row = tl.program_id(0) % blocks * ROWS
    row = first_row + tl.arange(0, ROWS)
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
    # What is beyond the last query reads the biases of that one, and is not stored.
    near = tl.minimum(row, size - 1)[:, None]
    whole = size // COLUMNS * COLUMNS
    below = tl.minimum((first_row + 1) // COLUMNS * COLUMNS, whole)
    above = tl.minimum(tl.cdiv(first_row + ROWS + 1, COLUMNS) * COLUMNS, whole)
    keys = start + dim
    largest, total, attended = _attend_to_blocks(
        largest, total, attended, 0, below, query, keys, scores, near, size, dim, head_dim,
        scores_row, scale, HEAD, COLUMNS, PRECISION, BELOW,
    )  # fmt: skip
    largest, total, attended = _attend_to_blocks(
        largest, total, attended, below, above, query, keys, scores, near, size, dim, head_dim,
        scores_row, scale, HEAD, COLUMNS, PRECISION, ACROSS,
    )  # fmt: skip
    largest, total, attended = _attend_to_blocks(
        largest, total, attended, above, whole, query, keys, scores, near, size, dim, head_dim,
        scores_row, scale, HEAD, COLUMNS, PRECISION, ABOVE,
    )  # fmt: skip
    largest, total, attended = _attend_to_blocks(
        largest, total, attended, whole, size, query, keys, scores, near, size, dim, head_dim,
        scores_row, scale, HEAD, COLUMNS, PRECISION, LAST,
    )  # fmt: skip
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
