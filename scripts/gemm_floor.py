"""The masks a second that a model could do at best: if it were nothing but matrix products."""

from __future__ import annotations

import time

import torch
from fairseq.models import FairseqEncoderDecoderModel

from fbk_xattn.explain import Utterance
from scripts.explanation_models import synchronise

# Weights that are not multiplied for each copy: CTC has no part in explanations, positions are the
# same for all copies, and an embedding is looked up.
NOT_PER_COPY = ("ctc_fc.", "pos_proj.", "embed_tokens.", "embed_positions.")
# Size of the square matrices, and products in a row.
PRODUCTS = {"cuda": (8192, 10), "cpu": (1536, 3)}
ROUNDS = 4


def flops_per_mask(model: FairseqEncoderDecoderModel, utterance: Utterance, target: str) -> float:
    """Return 2 x parameters x steps of the parts that run for each mask.

    For the input these are the encoder and the keys and values of cross-attention at all encoder
    steps, and the rest of the decoder at all tokens; for the encoder output the rest of the decoder
    alone, as occluded copies share keys and values. The products within attention, of which no
    parameter takes part, are left out.
    """
    n_steps, n_tokens = len(utterance.encoder_out), len(utterance.prev_output_tokens)
    total = 0
    for name, weight in model.named_parameters(remove_duplicate=False):
        part = name.partition(".")[0]
        if part not in ("encoder", "decoder") or any(other in name for other in NOT_PER_COPY):
            continue
        if part == "encoder" or "encoder_attn.k_proj" in name or "encoder_attn.v_proj" in name:
            total += weight.numel() * n_steps if target == "input" else 0
        else:
            total += weight.numel() * n_tokens
    return 2.0 * total


def gemm_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Measure the FLOP/s of a product of big square matrices: the best of a few rounds."""
    size, repeats = PRODUCTS[device.type]
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    seconds = []
    for _ in range(ROUNDS):
        synchronise(device)
        start = time.perf_counter()
        for _ in range(repeats):
            a @ b
        synchronise(device)
        seconds.append(time.perf_counter() - start)
    return repeats * 2.0 * size**3 / min(seconds)
