"""The task ``speech_to_text_ctc_asr_st``: one model for recognition and translation."""

from __future__ import annotations

import math
from argparse import ArgumentParser
from collections.abc import Iterable
from hashlib import blake2b
from itertools import permutations
from typing import Any

import numpy as np
import torch
from fairseq.criterions import FairseqCriterion
from fairseq.logging import metrics
from fairseq.models import BaseFairseqModel
from fairseq.optim import FairseqOptimizer
from fairseq.tasks import register_task
from torch import Tensor

from fbk_xattn.errors import InputError
from fbk_xattn.tasks.speech_to_text_ctc import SpeechToTextCTCTask

KINDS = ("st", "asr")

Step = tuple[Tensor, int, dict[str, Any]]


@register_task("speech_to_text_ctc_asr_st")
class SpeechToTextASRSTTask(SpeechToTextCTCTask):
    """Trains on translations and, for some batches, on transcripts as targets.

    With probability ``--p-sampling-asr`` a whole batch takes its transcripts, after the tag of the
    source language, as target texts. CTC over transcripts is the same for both. Validation adds
    both losses up.
    """

    transcripts_as_targets = True

    @classmethod
    def add_args(cls, parser: ArgumentParser) -> None:
        """Add ``--p-sampling-asr``."""
        super().add_args(parser)
        parser.add_argument(
            "--p-sampling-asr",
            type=float,
            default=0.5,
            metavar="P",
            help="probability that a batch trains recognition, 0 to 1 (default: 0.5)",
        )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Check ``--p-sampling-asr``.

        Raises:
            InputError: It is not in [0, 1].
        """
        super().__init__(*args, **kwargs)
        if not 0 <= self.args.p_sampling_asr <= 1:
            raise InputError(f"--p-sampling-asr {self.args.p_sampling_asr}: expected 0 to 1")
        self._update, self._micro_batch = -1, 0

    def takes_transcripts(self, update_num: int) -> bool:
        """Draw whether the next micro-batch of an update trains recognition.

        A function of ``--seed``, the update and how many micro-batches it has had: the same on
        every rank and after a restart.
        """
        self._micro_batch = self._micro_batch + 1 if update_num == self._update else 0
        self._update = update_num
        key = f"{self.args.seed} {update_num} {self._micro_batch}".encode()
        stream = np.random.Philox(key=int.from_bytes(blake2b(key, digest_size=16).digest()))
        return bool(np.random.Generator(stream).random() < self.args.p_sampling_asr)

    def train_step(
        self,
        sample: dict[str, Any],
        model: BaseFairseqModel,
        criterion: FairseqCriterion,
        optimizer: FairseqOptimizer,
        update_num: int,
        ignore_grad: bool = False,
    ) -> Step:
        """Do fairseq's step with the drawn targets."""
        kind = "asr" if self.takes_transcripts(update_num) else "st"
        loss, sample_size, logged = super().train_step(
            with_targets(sample, kind), model, criterion, optimizer, update_num, ignore_grad
        )
        return loss, sample_size, _named(logged, kind)

    def valid_step(
        self, sample: dict[str, Any], model: BaseFairseqModel, criterion: FairseqCriterion
    ) -> Step:
        """Add up the losses with either targets."""
        steps = [
            super(SpeechToTextASRSTTask, self).valid_step(
                with_targets(sample, kind), model, criterion
            )
            for kind in KINDS
        ]
        logged: dict[str, Any] = {}
        for kind, step in zip(KINDS, steps, strict=True):
            logged |= _named(step[2], kind)
        loss = steps[0][0] + steps[1][0]
        return loss, steps[0][1] + steps[1][1], {**logged, "loss": loss.data}

    def log_metrics(
        self, logging_outputs: list[dict[str, Any]], criterion: FairseqCriterion
    ) -> None:
        """Log what the criterion logs, for each kind apart, and the loss of both."""
        totals = {"loss": 0.0, "ntokens": 0.0, "nsentences": 0.0, "sample_size": 0.0}
        for kind in KINDS:
            parts = [_of_kind(log, kind) for log in logging_outputs if f"loss_{kind}" in log]
            if not parts:
                continue
            for name in totals:
                totals[name] += float(sum(torch.as_tensor(part[name]).item() for part in parts))
            with metrics.aggregate(new_root=True) as aggregate:
                criterion.__class__.reduce_metrics(parts)
            weight = sum(torch.as_tensor(part["sample_size"]).item() for part in parts)
            for name, value in aggregate.get_smoothed_values().items():
                metrics.log_scalar(f"{name}_{kind}", value, weight, round=3)
        bits = totals["loss"] / totals["sample_size"] / math.log(2)
        metrics.log_scalar("loss", bits, totals["sample_size"], round=3)
        metrics.log_scalar("wpb", totals["ntokens"], priority=180, round=1)
        metrics.log_speed("wps", totals["ntokens"], priority=90, round=1)
        metrics.log_scalar("bsz", totals["nsentences"], priority=190, round=1)

    def validation_metrics(self, logged: Iterable[str]) -> set[str]:
        """Return the names of what validation logs: for either kind, whichever was trained."""
        names = super().validation_metrics(logged)
        return names.union(
            f"{name.removesuffix(f'_{kind}')}_{other}"
            for name in names
            for kind, other in permutations(KINDS)
            if name.endswith(f"_{kind}")
        )


def with_targets(sample: dict[str, Any], kind: str) -> dict[str, Any]:
    """Return a batch with its translations (``st``) or its transcripts (``asr``) as targets."""
    if kind == "st" or not sample:
        return sample
    targets = sample["transcript_as_target"]
    prev_output_tokens = targets["prev_output_tokens"]
    return {
        **sample,
        "net_input": {**sample["net_input"], "prev_output_tokens": prev_output_tokens},
        "target": targets["target"],
        "target_lengths": targets["target_lengths"],
        "ntokens": targets["ntokens"],
    }


def _named(logged: dict[str, Any], kind: str) -> dict[str, Any]:
    """Return logged values under the names of their kind, and the loss under its own too."""
    return {**{f"{name}_{kind}": value for name, value in logged.items()}, "loss": logged["loss"]}


def _of_kind(logged: dict[str, Any], kind: str) -> dict[str, Any]:
    """Undo :func:`_named`."""
    suffix = f"_{kind}"
    return {
        name.removesuffix(suffix): value for name, value in logged.items() if name.endswith(suffix)
    }
