"""Flags of ``fairseq-generate`` that decide which hypothesis is explained."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from fbk_xattn.errors import InputError

ALWAYS = (
    "beam", "max_len_a", "max_len_b", "min_len", "unnormalized", "lenpen", "unkpen", "temperature",
    "no_repeat_ngram_size", "prefix_size", "sampling", "sampling_topk", "sampling_topp",
    "diverse_beam_groups", "diverse_beam_strength", "diversity_rate", "match_source_len", "fp16",
)  # fmt: skip
# Recorded where they are not as fairseq sets them, so that stores without them can be gone on with.
SELDOM = {
    "model_overrides": "{}",
    "lm_path": None,
    "lm_weight": 0.0,
}
BEST_ALONE = "as the best hypothesis alone is stored"
DRAWN = "as hypotheses drawn at random would change with the batch, and so with a resumed run"
ONE_FILE = "as the store is of the file that --path names"
# What a store has no place for, or what cannot be done beside it: as fairseq sets it, and why.
REFUSED = {
    "nbest": (1, BEST_ALONE),
    "score_reference": (False, BEST_ALONE),
    "print_alignment": (None, BEST_ALONE),
    "sampling": (False, DRAWN),
    "retain_dropout": (False, DRAWN),
    "checkpoint_suffix": ("", ONE_FILE),
    "checkpoint_shard_count": (1, ONE_FILE),
    "constraints": (None, "as manifests have no place for them"),
}


def decoding_parameters(args: Namespace) -> dict[str, Any]:
    """Return the flags that hypotheses depend on with their values, for a store's ``meta.json``."""
    names = [*ALWAYS, *(name for name in SELDOM if _is_set(args, name, SELDOM[name]))]
    return {_flag(name): getattr(args, name) for name in names}


def check_decoding(args: Namespace, needed_for: str) -> None:
    """Check that a run leaves one hypothesis an utterance, which a store holds.

    Args:
        args: Parsed flags.
        needed_for: Flag that asks for the store.

    Raises:
        InputError: A flag that does not go together with a store.
    """
    for name, (usual, why) in REFUSED.items():
        if _is_set(args, name, usual):
            expected = usual if isinstance(usual, int) and usual is not False else "none"
            raise InputError(
                f"{_flag(name)} {getattr(args, name)} with {needed_for}: expected {expected}, {why}"
            )


def _is_set(args: Namespace, name: str, usual: Any) -> bool:
    value = getattr(args, name, usual)
    return value != usual and value is not None


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
