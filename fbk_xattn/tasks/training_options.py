"""Flags of ``fairseq-train`` that say what an epoch holds."""

from __future__ import annotations

import math
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from typing import Any

from fbk_xattn.data.subwords import SubwordSampler
from fbk_xattn.errors import InputError
from fbk_xattn.tasks.training_lengths import MAX_TRAIN_FRAMES

SUBWORD_FLAG = "--subword-regularization"


def add_training_args(parser: ArgumentParser) -> None:
    """Add the flags that say what an epoch holds."""
    group = parser.add_argument_group("training (fairseq-train)")
    group.add_argument(
        "--max-train-frames",
        type=int,
        default=MAX_TRAIN_FRAMES,
        metavar="N",
        help="longest utterance to train on, in feature frames of 10 ms; the log counts the longer "
        "ones, which are left out (default: 3000, 30 s)",
    )
    group.add_argument(
        SUBWORD_FLAG,
        type=float,
        default=0.0,
        metavar="ALPHA",
        help="train on other subwords of the texts in every epoch, drawn with their probability to "
        "the power of ALPHA (0.2 in the recipe of examples/prompts/train; default: 0, for none)",
    )


def subword_samplers(
    args: Namespace, tokenizers: Mapping[str, Any]
) -> dict[str, SubwordSampler] | None:
    """Return what samples in place of the tokenizers, ``None`` if nothing is to be sampled.

    Args:
        args: Parsed flags; checkpoints of the published system do not know this one.
        tokenizers: ``bpe`` and ``bpe_src``, fairseq's.

    Raises:
        InputError: The flag is negative or no number, or a tokenizer cannot sample.
    """
    alpha = getattr(args, "subword_regularization", 0.0)
    if not (math.isfinite(alpha) and alpha >= 0):
        raise InputError(f"{SUBWORD_FLAG} {alpha}: expected a number from 0")
    if alpha == 0:
        return None
    return {
        name: SubwordSampler(tokenizers[name], alpha, f"{SUBWORD_FLAG} {alpha:g}")
        for name in ("bpe", "bpe_src")
    }
