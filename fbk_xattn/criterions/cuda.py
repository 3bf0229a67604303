"""What the CTC loss reads of the logits and its gradient by them, each in one pass over memory.

Imported only on a CUDA device.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

# Sizes of rows by which the products that read them are fast.
ALIGNMENT = 8


@triton.jit(do_not_specialize=["n_utterances", "n_symbols", "n_columns"])
def _log_probs(
    logits,
    columns,
    log_probs,
    normalisers,
    n_utterances,
    n_symbols,
    n_columns,
    step_stride,
    utterance_stride,
    SYMBOLS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """One step of one utterance: its log-softmax at some columns."""
    row = tl.program_id(0).to(tl.int64)
    utterance = row % n_utterances
    start = logits + row // n_utterances * step_stride + utterance * utterance_stride
    symbol = tl.arange(0, SYMBOLS)
    scores = tl.load(start + symbol, mask=symbol < n_symbols, other=float("-inf")).to(tl.float32)
    largest = tl.max(scores, axis=0)
    normaliser = largest + tl.log(tl.sum(tl.exp(scores - largest), axis=0))
    tl.store(normalisers + row, normaliser)
    column = tl.arange(0, COLUMNS)
    there = column < n_columns
    index = tl.load(columns + utterance * n_columns + column, mask=there, other=0)
    own = tl.load(start + index, mask=there, other=0.0).to(tl.float32)
    tl.store(log_probs + row * n_columns + column, own - normaliser, mask=there)


def log_probs_of_columns(logits: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
    """Return the log-softmax of ``logits`` at some columns, and the logarithms it divides by.

    Args:
        logits: ``(T', B, V)``, the last dimension without gaps.
        columns: ``(B, n)`` indices into the last dimension.

    Returns:
        ``(T', B, n)`` and ``(T', B)`` in float32.
    """
    n_steps, n_utterances, n_symbols = logits.shape
    n_columns = columns.shape[1]
    log_probs = torch.empty(n_steps, n_utterances, n_columns, device=logits.device)
    normalisers = torch.empty(n_steps, n_utterances, device=logits.device)
    _log_probs[(n_steps * n_utterances,)](
        logits,
        columns.contiguous(),
        log_probs,
        normalisers,
        n_utterances,
        n_symbols,
        n_columns,
        logits.stride(0),
        logits.stride(1),
        **_blocks(n_symbols, n_columns),
    )
    return log_probs, normalisers


@triton.jit(do_not_specialize=["n_utterances", "n_symbols", "n_columns"])
def _gradient(
    logits,
    columns,
    normalisers,
    elsewhere,
    on_columns,
    result,
    n_utterances,
    n_symbols,
    n_columns,
    step_stride,
    utterance_stride,
    width,
    SYMBOLS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """One step of one utterance: a multiple of its softmax, but at some columns."""
    row = tl.program_id(0).to(tl.int64)
    utterance = row % n_utterances
    start = logits + row // n_utterances * step_stride + utterance * utterance_stride
    symbol = tl.arange(0, SYMBOLS)
    inside = symbol < n_symbols
    scores = tl.load(start + symbol, mask=inside, other=float("-inf")).to(tl.float32)
    probability = tl.exp(scores - tl.load(normalisers + row))
    value = tl.where(inside, probability * tl.load(elsewhere + row), 0.0)
    tl.store(result + row * width + symbol, value, mask=symbol < width)
    tl.debug_barrier()  # the same places are written again
    column = tl.arange(0, COLUMNS)
    there = column < n_columns
    index = tl.load(columns + utterance * n_columns + column, mask=there, other=0)
    own = tl.load(on_columns + row * n_columns + column, mask=there, other=0.0)
    tl.store(result + row * width + index, own, mask=there)


def gradient_by_logits(
    logits: Tensor, columns: Tensor, normalisers: Tensor, elsewhere: Tensor, on_columns: Tensor
) -> Tensor:
    """Return a multiple of the softmax of ``logits``, with other values at some columns.

    Args:
        logits: ``(T', B, V)``, the last dimension without gaps.
        columns: ``(B, n)`` indices into the last dimension.
        normalisers: ``(T', B)``, see :func:`log_probs_of_columns`.
        elsewhere: ``(T', B)`` in float32, that the softmax is multiplied by.
        on_columns: ``(T', B, n)`` in float32; equal columns have equal values.

    Returns:
        ``(T', B, V)``, not contiguous: rows begin at multiples of some elements.
    """
    n_steps, n_utterances, n_symbols = logits.shape
    width = triton.cdiv(n_symbols, ALIGNMENT) * ALIGNMENT
    result = logits.new_empty(n_steps, n_utterances, width)
    _gradient[(n_steps * n_utterances,)](
        logits,
        columns.contiguous(),
        normalisers,
        elsewhere.contiguous(),
        on_columns.contiguous(),
        result,
        n_utterances,
        n_symbols,
        columns.shape[1],
        logits.stride(0),
        logits.stride(1),
        width,
        **_blocks(width, columns.shape[1]),
    )
    return result[..., :n_symbols]


def _blocks(n_symbols: int, n_columns: int) -> dict[str, int]:
    symbols = triton.next_power_of_2(n_symbols)
    return {
        "SYMBOLS": symbols,
        "COLUMNS": triton.next_power_of_2(n_columns),
        "num_warps": min(16, max(1, symbols // 1024)),
    }
