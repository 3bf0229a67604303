"""Whether criterion, model and data config of a training belong together."""

from __future__ import annotations

import logging
from argparse import Namespace

from fairseq.criterions import FairseqCriterion
from fairseq.models import BaseFairseqModel

from fbk_xattn.criterions.ctc_multi_loss import CTCMultiLoss
from fbk_xattn.criterions.joint_cross_entropy_ctc import JointCrossEntropyCTCCriterion
from fbk_xattn.errors import InputError

logger = logging.getLogger(__name__)


def check_ignored_prefix(args: Namespace) -> None:
    """Check that the language tag, which begins every target text, has no loss.

    Raises:
        InputError: ``--ignore-prefix-size`` is not 1, or the criterion has no such flag.
    """
    size = getattr(args, "ignore_prefix_size", None)
    if size is None:
        raise InputError(
            f"--criterion {getattr(args, '_name', None)}: has no --ignore-prefix-size, "
            "expected one that has, as the data config prepends language tags"
        )
    if size != 1:
        raise InputError(
            f"--ignore-prefix-size {size}: expected 1, as the data config prepends language tags"
        )


def fit_model_to_criterion(
    model: BaseFairseqModel, criterion: FairseqCriterion, arch: str | None
) -> None:
    """Check that the model has the heads that the criterion needs; freeze one that it does not.

    An auxiliary head without a loss may be trained along: a checkpoint with one can be trained on
    with cross-entropy alone. Frozen, it takes no weight decay, and processes that train together do
    not wait for its gradient.

    Args:
        model: To train.
        criterion: To train with.
        arch: Architecture of the model, for the messages.

    Raises:
        InputError: The model lacks a head.
    """
    on_transcripts = isinstance(criterion, CTCMultiLoss)
    if on_transcripts and not hasattr(model.encoder, "ctc_logits"):
        raise InputError(
            f"--criterion ctc_multi_loss with --arch {arch}: the model has no CTC over "
            "transcripts, expected conformer, conformer_joint_ctc or one of their sizes"
        )
    underlying = criterion.underlying if on_transcripts else criterion
    on_targets = isinstance(underlying, JointCrossEntropyCTCCriterion)
    has_auxiliary_head = hasattr(model, "auxiliary_decoder")
    if on_targets and not has_auxiliary_head:
        flag = "--underlying-criterion" if on_transcripts else "--criterion"
        raise InputError(
            f"{flag} joint_cross_entropy_ctc with --arch {arch}: the model has no CTC over target "
            "texts, expected conformer_joint_ctc or one of its sizes, or the criterion "
            "label_smoothed_cross_entropy"
        )
    if has_auxiliary_head and not on_targets:
        model.auxiliary_decoder.requires_grad_(False)
        logger.info("no loss for CTC over target texts: the auxiliary head stays as it is")
