"""Attention without gradients in one kernel each: with relative positions, and to shared keys."""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from fbk_xattn.models.cuda.device import multiprocessors

# Tensor cores multiply blocks of at least so many elements a side.
SMALLEST_BLOCK = 16
# Queries and keys of a tile, and how it is computed; see `scripts/tune_kernels.py`.
RELATIVE_TILE = {"ROWS": 64, "COLUMNS": 32, "num_stages": 3, "num_warps": 4, "maxnreg": 168}
# The same of float32, which takes more registers.
PRECISE_TILE = {"ROWS": 32, "COLUMNS": 32, "num_stages": 2, "num_warps": 4, "maxnreg": 168}
# Programs for each multiprocessor: as many as it has registers for.
PROGRAMS = 3


@triton.jit(do_not_specialize=["n_tiles", "size"])
def _attend_relatively(
    projected,
    positions,
    content_shift,
    scores,
    result,
    n_tiles,
    size,
    heads,
    head_dim,
    room,
    scale,
    HEAD: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Tiles of queries of one head of one utterance, one after the other.

    First the scores of a tile's queries with all positions, which stay in the cache, then attention
    with them as biases. The relative shift, see `RelativePositions.of`, lies in how they are read:
    they are written in rows with a zero behind each, and read in rows that are one shorter. So a
    tile has one query more than it attends from, whose scores it needs.
    """
    local = tl.arange(0, ROWS)
    along = tl.arange(0, COLUMNS)
    feature = tl.arange(0, HEAD)
    dim = heads * head_dim
    scores += tl.program_id(0).to(tl.int64) * room
    blocks = tl.cdiv(size, ROWS - 1)
    for tile in range(tl.program_id(0), n_tiles, tl.num_programs(0)):
        # Tiles that share keys are neighbours.
        matrix = tile // blocks
        utterance = (matrix // heads).to(tl.int64)
        first_feature = matrix % heads * head_dim
        first_row = tile % blocks * (ROWS - 1)
        row = first_row + local
        start = projected + utterance * size * 3 * dim + first_feature
        used = (row < size)[:, None] & (feature < head_dim)[None, :]
        query = tl.load(start + row[:, None] * (3 * dim) + feature[None, :], mask=used, other=0.0)
        for first in range(0, size + 1, COLUMNS):
            position = first + along
            table = tl.load(
                positions + position[None, :] * dim + first_feature + feature[:, None],
                mask=(position < size)[None, :] & (feature < head_dim)[:, None],
                other=0.0,
            )
            score = tl.dot(query, table, input_precision=PRECISION)
            place = (local * (size + 1))[:, None] + position[None, :]
            tl.store(scores + place, score, mask=(position <= size)[None, :])
        tl.debug_barrier()  # threads read scores that others have written
        shift = tl.load(content_shift + first_feature + feature, mask=feature < head_dim, other=0.0)
        query = (query.to(tl.float32) + shift[None, :]).to(query.dtype)
        largest = tl.full((ROWS,), float("-inf"), dtype=tl.float32)
        total = tl.zeros((ROWS,), dtype=tl.float32)
        attended = tl.zeros((ROWS, HEAD), dtype=tl.float32)
        place_of_bias = (local * size + size - 1 - first_row)[:, None]
        # A block ahead, as Triton does not do for loads of two bytes.
        following = tl.load(scores + place_of_bias + along[None, :])
        for first in range(0, size, COLUMNS):
            column = first + along
            there = (column < size)[:, None] & (feature < head_dim)[None, :]
            place = column[:, None] * (3 * dim) + feature[None, :]
            key = tl.load(start + dim + place, mask=there, other=0.0)
            bias = following
            following = tl.load(scores + place_of_bias + column[None, :] + COLUMNS)
            weight = tl.dot(query, tl.trans(key), input_precision=PRECISION) + bias.to(tl.float32)
            weight = tl.where((column < size)[None, :], weight, float("-inf"))
            larger = tl.maximum(largest, tl.max(weight, axis=1))
            weight = tl.exp2(weight * scale - (larger * scale)[:, None])
            shrink = tl.exp2((largest - larger) * scale)
            total = total * shrink + tl.sum(weight, axis=1)
            value = tl.load(start + 2 * dim + place, mask=there, other=0.0)
            attended = attended * shrink[:, None] + tl.dot(
                weight.to(value.dtype), value, input_precision=PRECISION
            )
            largest = larger
        own = used & (local < ROWS - 1)[:, None]
        target = result + utterance * size * dim + first_feature
        place = row[:, None] * dim + feature[None, :]
        tl.store(target + place, attended * (1.0 / total)[:, None], mask=own)
        tl.debug_barrier()  # and write over them only when all have read


def attend_relatively(
    projected: Tensor, positions: Tensor, content_shift: Tensor, heads: int, scale: float
) -> Tensor:
    """Attend with relative positions, utterances all of one length.

    Args:
        projected: ``(B, L, 3 d)``: queries with the position bias, keys and values.
        positions: ``(L, d)``.
        content_shift: ``(d,)`` in float32: content bias minus position bias.
        heads: That ``d`` is split into.
        scale: Of the sum of the products of a query with its key and its position.

    Returns:
        ``(B, L, d)``.
    """
    n_utterances, size, _ = projected.shape
    dim = len(content_shift)
    tile = PRECISE_TILE if projected.dtype == torch.float32 else RELATIVE_TILE
    rows, columns = tile["ROWS"], tile["COLUMNS"]
    n_tiles = triton.cdiv(size, rows - 1) * n_utterances * heads
    n_programs = min(n_tiles, PROGRAMS * multiprocessors(projected))
    # Blocks of keys are read whole, and one more; rounded up, for addresses that are aligned.
    room = triton.cdiv(rows * (size + 1) + 2 * columns, 64) * 64
    result = projected.new_empty(n_utterances, size, dim)
    _attend_relatively[(n_programs,)](
        projected,
        positions,
        content_shift,
        projected.new_empty((n_programs, room)),
        result,
        n_tiles,
        size,
        heads,
        dim // heads,
        room,
        scale / math.log(2),
        HEAD=_block(dim // heads),
        PRECISION=_precision(projected),
        **tile,
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
