"""Flags of ``fairseq-train`` that would be ignored, or fail only hours in."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Collection

from fairseq.models import BaseFairseqModel

from fbk_xattn.errors import InputError
from fbk_xattn.models.conformer import ConformerModel


def check_training_flags(args: Namespace, model: BaseFairseqModel) -> None:
    """Check flags of fairseq that do not go with each other or with the model.

    Args:
        args: Flags of ``fairseq-train``.
        model: To train.

    Raises:
        InputError: Validation is on the training split, or the model has no use for a flag.
    """
    if not args.disable_validation and args.train_subset in args.valid_subset.split(","):
        # fairseq would go through both with one iterator, and train in every second epoch alone.
        raise InputError(
            f"--valid-subset {args.valid_subset}: expected other splits than --train-subset "
            f"{args.train_subset}; a copy of {args.train_subset}.tsv may have another name"
        )
    if args.store_ema and not all(
        weight.is_floating_point() for weight in model.state_dict().values()
    ):
        raise InputError(
            "--store-ema: not supported, as the counts of batch norm have no moving average; "
            "expected fbk-xattn average-checkpoints after the training"
        )
    if isinstance(model, ConformerModel):
        _check_encoder_flags(args)


def _check_encoder_flags(args: Namespace) -> None:
    """Refuse what the model inherits from fairseq's parser alone."""
    pretrained = getattr(args, "load_pretrained_encoder_from", None)
    if pretrained:
        raise InputError(
            f"--load-pretrained-encoder-from {pretrained}: not supported by --arch {args.arch}, "
            "expected --finetune-from-model, which takes all weights of a checkpoint"
        )
    if getattr(args, "encoder_freezing_updates", None):
        raise InputError(
            f"--encoder-freezing-updates {args.encoder_freezing_updates}: not supported by "
            f"--arch {args.arch}, expected none"
        )


def check_best_metric(args: Namespace, logged: Collection[str]) -> None:
    """Check that validation will have the metric that decides which checkpoint is best.

    Args:
        args: Flags of ``fairseq-train``.
        logged: Names of what validation logs.

    Raises:
        InputError: It will not, of which fairseq would raise a KeyError after validating.
    """
    metric = args.best_checkpoint_metric
    if not args.disable_validation and metric not in logged:
        raise InputError(
            f"--best-checkpoint-metric {metric}: not logged by this task and criterion, expected "
            f"one of: {', '.join(sorted(logged))}"
        )
