"""Registers everything with fairseq; ``import fbk_xattn.plugin`` does what ``--user-dir`` does."""

from __future__ import annotations

import importlib
import sys

from fbk_xattn.environment import require_fairseq

REGISTERING = (
    "fbk_xattn.models.conformer",
    "fbk_xattn.criterions.joint_cross_entropy_ctc",
    "fbk_xattn.criterions.ctc_multi_loss",
    "fbk_xattn.optim.adamw",
    "fbk_xattn.optim.piecewise_warmup",
    "fbk_xattn.tasks.speech_to_text_ctc",
    "fbk_xattn.tasks.speech_to_text_ctc_asr_st",
)
TASKS = ("speech_to_text_ctc", "speech_to_text_ctc_asr_st")

require_fairseq()
for _module in REGISTERING:
    importlib.import_module(_module)
importlib.import_module("fbk_xattn.checkpoints").allow_checkpoint_classes()
importlib.import_module("fbk_xattn.tasks.help").show_task_flags_with_help(sys.argv[1:], TASKS)
