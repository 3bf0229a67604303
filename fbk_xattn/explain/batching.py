"""How many occluded copies go through the model at once, and what when they are too many."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch
from torch import Tensor

from fbk_xattn.explain.utterance import Utterance

logger = logging.getLogger(__name__)

# Frames of all copies. On two cores rates level off there for 2 to 5 s of speech, on a GPU where
# its matrix products do.
CPU_FRAMES = 20_000
CUDA_FRAMES = 1_024_000
# Tokens of all copies, where the decoder runs alone.
CUDA_TOKENS = 128_000
# Of the free memory of a device, what a batch may be thought to need.
CUDA_SHARE = 0.5
LARGEST = 8192

Result = TypeVar("Result")


def perturbations_per_eval(utterance: Utterance, target: str) -> int:
    """Choose the number of copies from the sizes of an utterance and, on a GPU, its free memory.

    Args:
        utterance: On the device of the model.
        target: What is occluded; of ``encoder``, copies have tokens alone.

    Returns:
        At least 1. Masks do not depend on it.
    """
    n_frames, n_tokens = len(utterance.features), len(utterance.logits)
    if not utterance.features.is_cuda:
        return max(1, CPU_FRAMES // n_frames)
    dim, n_symbols = utterance.encoder_out.shape[1], utterance.logits.shape[1]
    # Seen at most, in half precision: 12 bytes a frame and dimension, 4 a token and symbol.
    decoder_bytes = n_tokens * (n_symbols * 8 + dim * 64)
    if target == "encoder":
        wanted, copy_bytes = CUDA_TOKENS // n_tokens, decoder_bytes
    else:
        wanted, copy_bytes = CUDA_FRAMES // n_frames, n_frames * dim * 16 + decoder_bytes
    device = utterance.features.device
    free, _ = torch.cuda.mem_get_info(device)
    free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return max(1, min(wanted, int(CUDA_SHARE * free) // copy_bytes, LARGEST))


class ShrinkingBatch:
    """A batch size that halves when the device runs out of memory.

    Attributes:
        size: Rows that go at once.
    """

    def __init__(self, size: int) -> None:
        """Begin with ``size`` rows."""
        self.size = size

    def run(self, rows: Tensor, work: Callable[[Tensor], Result]) -> Iterator[tuple[int, Result]]:
        """Yield, for stretches of ``(n, ...)`` rows in order, their number and ``work``'s result.

        Raises:
            torch.OutOfMemoryError: There is no room for a single row.
        """
        start = 0
        while start < len(rows):
            part = rows[start : start + self.size]
            try:
                result = work(part)
            except torch.OutOfMemoryError:
                if len(part) == 1:
                    raise
                self.size = len(part) // 2
                logger.warning(
                    "no memory on the device for %d occluded copies at once, going on with %d",
                    len(part),
                    self.size,
                )
            else:
                yield len(part), result
                start += len(part)
                continue
            torch.cuda.empty_cache()  # here, where the failed pass holds no tensors any more
