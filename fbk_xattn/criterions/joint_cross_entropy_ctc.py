"""Cross-entropy of the decoder and CTC over target texts."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from fairseq.criterions import register_criterion
from fairseq.models import BaseFairseqModel
from fairseq.tasks import FairseqTask
from torch import Tensor

from fbk_xattn.criterions.ctc import count_unalignable, ctc_loss
from fbk_xattn.criterions.logged import log_parts, log_too_short
from fbk_xattn.criterions.smoothed_cross_entropy import NetOutput, SmoothedCrossEntropy
from fbk_xattn.models.conformer import CTC_BLANK


@register_criterion("joint_cross_entropy_ctc")
class JointCrossEntropyCTCCriterion(SmoothedCrossEntropy):
    """Weighted sum of label-smoothed cross-entropy and auxiliary target CTC.

    The language tag (``--ignore-prefix-size 1``) counts in neither, eos only in cross-entropy.
    """

    def __init__(
        self,
        task: FairseqTask,
        sentence_avg: bool,
        label_smoothing: float,
        ignore_prefix_size: int = 0,
        report_accuracy: bool = False,
        primary_loss_weight: float = 5.0,
        auxiliary_loss_weight: float = 2.0,
    ) -> None:
        """Keep the weights."""
        super().__init__(task, sentence_avg, label_smoothing, ignore_prefix_size, report_accuracy)
        self.primary_loss_weight = primary_loss_weight
        self.auxiliary_loss_weight = auxiliary_loss_weight
        self.target_dictionary = task.target_dictionary

    @classmethod
    def add_args(cls, parser: ArgumentParser) -> None:
        """Add the flags."""
        add = parser.add_argument
        add(
            "--label-smoothing",
            default=0.0,
            type=float,
            metavar="D",
            help="epsilon of label smoothing, 0 for none (default: 0)",
        )
        add("--report-accuracy", action="store_true", help="log token accuracy")
        add(
            "--ignore-prefix-size",
            default=0,
            type=int,
            metavar="N",
            help="target tokens at the beginning without loss; 1 with language tags (default: 0)",
        )
        add(
            "--primary-loss-weight",
            default=5.0,
            type=float,
            metavar="D",
            help="weight of cross-entropy (default: 5.0)",
        )
        add(
            "--auxiliary-loss-weight",
            default=2.0,
            type=float,
            metavar="D",
            help="weight of CTC over target texts (default: 2.0)",
        )

    def loss_of(
        self,
        model: BaseFairseqModel,
        net_output: NetOutput,
        sample: dict[str, Any],
        reduce: bool = True,
    ) -> tuple[Tensor, int, dict[str, Any]]:
        """Return loss, gradient denominator (target tokens) and what is logged."""
        primary, sample_size, logged = super().loss_of(model, net_output, sample, reduce)
        auxiliary = self.auxiliary_loss(model, net_output, sample)
        loss = self.primary_loss_weight * primary + self.auxiliary_loss_weight * auxiliary
        logged |= {
            "loss": loss.data,
            "primary_loss": primary.data,
            "auxiliary_loss": auxiliary.data,
        }
        if model.training:
            targets = self.auxiliary_targets(net_output, sample)
            logged["auxiliary_too_short"] = count_unalignable(*targets)
        return loss, sample_size, logged

    def auxiliary_targets(
        self, net_output: NetOutput, sample: dict[str, Any]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return ``(B,)`` encoder steps, ``(B, U)`` targets and their ``(B,)`` lengths.

        They are target texts without language tag and eos.
        """
        return (
            net_output[1]["encoder_out"]["src_lengths"][0],
            sample["target"][:, self.ignore_prefix_size :],
            sample["target_lengths"] - self.ignore_prefix_size - 1,
        )

    def auxiliary_loss(
        self, model: BaseFairseqModel, net_output: NetOutput, sample: dict[str, Any]
    ) -> Tensor:
        """Return the CTC loss over target texts."""
        encoder_out = net_output[1]["encoder_out"]
        logits = model.auxiliary_logits(encoder_out, sample["net_input"]["prev_output_tokens"])
        return ctc_loss(
            logits.transpose(0, 1),
            *self.auxiliary_targets(net_output, sample),
            self.target_dictionary.index(CTC_BLANK),
        )

    @classmethod
    def reduce_metrics(cls, logging_outputs: list[dict[str, Any]]) -> None:
        """Log the parts, in bits a token, and how many utterances are too short for CTC."""
        super().reduce_metrics(logging_outputs)
        log_parts(logging_outputs, ("primary_loss", "auxiliary_loss"))
        log_too_short(logging_outputs, "auxiliary_too_short", "target texts")
