"""The three-loss objective: CTC over transcripts on top of another criterion."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import Any

from fairseq.criterions import FairseqCriterion, register_criterion
from fairseq.models import BaseFairseqModel
from fairseq.tasks import FairseqTask
from torch import Tensor

from fbk_xattn.criterions.ctc import count_unalignable, ctc_loss
from fbk_xattn.criterions.joint_cross_entropy_ctc import JointCrossEntropyCTCCriterion
from fbk_xattn.criterions.logged import log_parts, log_too_short
from fbk_xattn.criterions.smoothed_cross_entropy import SmoothedCrossEntropy
from fbk_xattn.errors import InputError
from fbk_xattn.models.conformer import CTC_BLANK

UNDERLYING: dict[str, type[SmoothedCrossEntropy]] = {
    "joint_cross_entropy_ctc": JointCrossEntropyCTCCriterion,
    "label_smoothed_cross_entropy": SmoothedCrossEntropy,
}


@register_criterion("ctc_multi_loss")
class CTCMultiLoss(FairseqCriterion):
    """``ctc_weight * CTC(transcript) + underlying criterion``, summed over the batch.

    With ``joint_cross_entropy_ctc`` underneath and the default weights this is the paper's
    objective, 5 CE + 1 CTC on transcripts + 2 CTC on target texts.
    """

    def __init__(
        self,
        task: FairseqTask,
        underlying: SmoothedCrossEntropy,
        ctc_weight: float,
        sentence_avg: bool,
    ) -> None:
        """Keep the parts."""
        super().__init__(task)
        self.underlying = underlying
        self.ctc_weight = ctc_weight
        self.sentence_avg = sentence_avg
        self.transcript_dictionary = task.transcript_dictionary

    @staticmethod
    def add_args(parser: ArgumentParser) -> None:
        """Add the flags, with those of the underlying criterion."""
        JointCrossEntropyCTCCriterion.add_args(parser)
        add = parser.add_argument
        add(
            "--underlying-criterion",
            default="joint_cross_entropy_ctc",
            metavar="NAME",
            help=f"{' or '.join(UNDERLYING)} (default: joint_cross_entropy_ctc)",
        )
        add(
            "--ctc-weight",
            default=1.0,
            type=float,
            metavar="D",
            help="weight of CTC over transcripts (default: 1.0)",
        )
        add(
            "--ctc-encoder-layer",
            type=int,
            metavar="N",
            help="encoder layer, counted from 1, that CTC over transcripts reads",
        )

    @classmethod
    def build_criterion(cls, args: Namespace, task: FairseqTask) -> CTCMultiLoss:
        """Build it and the underlying criterion.

        Raises:
            InputError: An unknown underlying criterion.
        """
        name = args.underlying_criterion
        if name not in UNDERLYING:
            raise InputError(f"--underlying-criterion {name}, expected {' or '.join(UNDERLYING)}")
        underlying = UNDERLYING[name].build_criterion(args, task)
        return cls(task, underlying, args.ctc_weight, args.sentence_avg)

    def forward(
        self, model: BaseFairseqModel, sample: dict[str, Any], reduce: bool = True
    ) -> tuple[Tensor, int, dict[str, Any]]:
        """Return loss, gradient denominator and what is logged.

        The denominator is the number of transcript tokens with eos (of sentences with
        ``--sentence-avg``), as in the published system. Losses are in nats, summed over the batch.
        """
        net_output = model(**sample["net_input"])
        real_loss, _, logged = self.underlying.loss_of(model, net_output, sample, reduce)
        transcript = sample["transcript"]
        encoder_out = net_output[1]["encoder_out"]
        targets = (
            encoder_out["src_lengths"][0],
            transcript["target"],
            transcript["target_lengths"] - 1,
        )
        blank = self.transcript_dictionary.index(CTC_BLANK)
        ctc = ctc_loss(model.encoder.ctc_logits(encoder_out), *targets, blank)
        if model.training:
            logged["ctc_too_short"] = count_unalignable(*targets)
        loss = self.ctc_weight * ctc + real_loss
        logged |= {"loss": loss.data, "ctc_loss": ctc.data, "real_loss": real_loss.data}
        denominator = logged["nsentences"] if self.sentence_avg else transcript["ntokens"]
        return loss, denominator, logged

    @classmethod
    def reduce_metrics(cls, logging_outputs: list[dict[str, Any]]) -> None:
        """Log the parts, in bits a token, and how many utterances are too short for CTC."""
        JointCrossEntropyCTCCriterion.reduce_metrics(logging_outputs)
        log_parts(logging_outputs, ("ctc_loss", "real_loss"))
        log_too_short(logging_outputs, "ctc_too_short", "transcripts")

    @staticmethod
    def logging_outputs_can_be_summed() -> bool:
        """Return true: every logged value is a sum over the batch."""
        return True
