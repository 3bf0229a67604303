"""Sizes of the architectures, without building them in memory."""

from __future__ import annotations

from argparse import Namespace
from types import SimpleNamespace

import torch
from fairseq.data import Dictionary
from fairseq.models import ARCH_CONFIG_REGISTRY, ARCH_MODEL_REGISTRY

from fbk_xattn.models.conformer import CTC_BLANK

# Preset to the vocabulary size of the paper's models.
PRESETS = {
    "conformer_joint_ctc_base": 8000,
    "conformer_joint_ctc_small": 16000,
    "conformer_joint_ctc_large": 16000,
}


def count_parameters(arch: str, vocabulary_size: int) -> dict[str, int]:
    """Count the parameters of an architecture, by part.

    Args:
        arch: Name of the architecture, for example ``conformer_joint_ctc_base``.
        vocabulary_size: Symbols of either dictionary without fairseq's own four and the CTC blank.

    Returns:
        Number of parameters of ``encoder``, ``decoder`` and, where there is one,
        ``auxiliary_decoder``.

    Raises:
        KeyError: No such architecture.
    """
    args = Namespace(
        criterion="ctc_multi_loss",
        input_feat_per_channel=80,
        max_source_positions=6000,
        max_target_positions=1024,
    )
    ARCH_CONFIG_REGISTRY[arch](args)
    dictionaries = []
    for _ in range(2):
        dictionary = Dictionary()
        for number in range(vocabulary_size):
            dictionary.add_symbol(f"{number}")
        dictionaries.append(dictionary)
    target, transcript = dictionaries
    transcript.add_symbol(CTC_BLANK)
    task = SimpleNamespace(target_dictionary=target, transcript_dictionary=transcript)
    with torch.device("meta"):
        model = ARCH_MODEL_REGISTRY[arch].build_model(args, task)
    return {
        name: sum(parameter.numel() for parameter in part.parameters())
        for name, part in model.named_children()
    }
