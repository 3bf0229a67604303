"""Builds models of any size for tests."""

from __future__ import annotations

from argparse import Namespace
from types import SimpleNamespace
from typing import Any

import fbk_xattn.plugin  # noqa: F401  # isort: skip
from fairseq.data import Dictionary
from fairseq.models import ARCH_CONFIG_REGISTRY, ARCH_MODEL_REGISTRY

SMALL = {
    "encoder_layers": 2,
    "decoder_layers": 1,
    "ctc_encoder_layer": 1,
    "encoder_embed_dim": 16,
    "encoder_attention_heads": 4,
    "decoder_embed_dim": 16,
    "decoder_ffn_embed_dim": 32,
    "decoder_attention_heads": 2,
    "conv_channels": 12,
    "conformer_conv_kernel_size": 7,
    "input_feat_per_channel": 6,
}


def dictionary(n_symbols: int) -> Dictionary:
    """Make a vocabulary of ``n_symbols``, fairseq's own four included."""
    made = Dictionary()
    for number in range(n_symbols - len(made)):
        made.add_symbol(f"w{number}")
    return made


def task(n_symbols: int = 20) -> Any:
    """Make what a model needs of a task; the transcript vocabulary has its blank."""
    transcript = dictionary(n_symbols)
    transcript.add_symbol("<ctc_blank>")
    return SimpleNamespace(
        target_dictionary=dictionary(n_symbols), transcript_dictionary=transcript
    )


def build(arch: str = "conformer_joint_ctc", task_: Any = None, **options: Any) -> Any:
    """Build a small model of an architecture, in training mode; ``options`` override."""
    return build_preset(arch, task_, **{**SMALL, **options})


def build_preset(arch: str, task_: Any = None, **options: Any) -> Any:
    """Build a model with the sizes of its architecture."""
    defaults = {
        "criterion": "ctc_multi_loss",
        "input_feat_per_channel": 80,
        "input_channels": 1,
        "max_source_positions": 6000,
        "max_target_positions": 1024,
    }
    args = Namespace(**{**defaults, **options})
    ARCH_CONFIG_REGISTRY[arch](args)
    return ARCH_MODEL_REGISTRY[arch].build_model(args, task() if task_ is None else task_)
