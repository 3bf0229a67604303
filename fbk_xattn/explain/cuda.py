"""The KL divergence in one pass over the logits; imported only on a CUDA device."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit(do_not_specialize=["n_tokens", "n_symbols"])
def _divergence(
    log_p,
    logits,
    result,
    n_tokens,
    n_symbols,
    copy_step,
    token_step,
    SYMBOLS: tl.constexpr,
):
    """The divergence of one token of one copy."""
    # In 64 bits: short utterances with long hypotheses have more logits than 32 bits count.
    token = (tl.program_id(0) % n_tokens).to(tl.int64)
    copy = (tl.program_id(0) // n_tokens).to(tl.int64)
    symbol = tl.arange(0, SYMBOLS)
    inside = symbol < n_symbols
    start = logits + copy * copy_step + token * token_step
    occluded = tl.load(start + symbol, mask=inside, other=float("-inf")).to(tl.float32)
    largest = tl.max(occluded, axis=0)
    total = tl.sum(tl.exp(occluded - largest), axis=0)
    log_q = occluded - largest - tl.log(total)
    original = tl.load(log_p + token * n_symbols + symbol, mask=inside, other=float("-inf"))
    terms = tl.where(inside, tl.exp(original) * (original - log_q), 0.0)
    tl.store(result + tl.program_id(0), tl.sum(terms, axis=0))


def divergence(log_p: Tensor, logits: Tensor) -> Tensor:
    """Return the KL divergence ``(n, S)`` in float32.

    Args:
        log_p: ``(S, V)`` original log probabilities, float32.
        logits: ``(n, S, V)`` of the occluded copies, the last dimension without gaps.
    """
    n_copies, n_tokens, n_symbols = logits.shape
    if logits.stride(2) != 1:
        logits = logits.contiguous()
    result = torch.empty(n_copies, n_tokens, device=logits.device)
    symbols = triton.next_power_of_2(n_symbols)
    _divergence[(n_copies * n_tokens,)](
        log_p.contiguous(),
        logits,
        result,
        n_tokens,
        n_symbols,
        logits.stride(0),
        logits.stride(1),
        SYMBOLS=symbols,
        num_warps=min(16, max(1, symbols // 1024)),
    )
    return result
