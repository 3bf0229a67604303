"""The checkpoint that training starts from, checked before fairseq reads it."""

from __future__ import annotations

import logging
from argparse import Namespace
from pathlib import Path
from typing import Any

from fairseq.models import BaseFairseqModel
from torch import Tensor

from fbk_xattn.checkpoints import load_checkpoint
from fbk_xattn.errors import InputError

logger = logging.getLogger(__name__)

# What fairseq takes for "not given".
DEFAULT_RESTORE_FILE = "checkpoint_last.pt"
RESETS = ("reset_optimizer", "reset_lr_scheduler", "reset_meters", "reset_dataloader")


def check_starting_checkpoint(args: Namespace, model: BaseFairseqModel, criterion: Any) -> None:
    """Check the checkpoint that ``fairseq-train`` is about to load into ``model``, if any.

    fairseq would start from nothing when an explicit ``--restore-file`` is missing, and wraps
    whatever is wrong with weights into advice on architectures.

    Args:
        args: Flags of ``fairseq-train``.
        model: To train.
        criterion: Flags of the criterion to train with.

    Raises:
        InputError: It is missing, unreadable, of another model or vocabulary, or has an optimizer
            for another criterion, or the flags that name it contradict each other.
    """
    flag, path = starting_checkpoint(args)
    if path is None:
        return
    name = f"{flag} {path}".strip()
    try:
        checkpoint = load_checkpoint(path, peek=True)
    except InputError as error:
        raise InputError(f"{flag} {error}".strip()) from None
    for entry in ("extra_state", "optimizer_history"):
        if not checkpoint.get(entry):
            raise InputError(f"{name}: not a checkpoint of training, expected an entry {entry!r}")
    misfit = _misfit(model, checkpoint["model"])
    if misfit:
        raise InputError(f"{name}: {misfit}")
    if flag == "--finetune-from-model" or args.reset_optimizer:
        return
    before, now = _losses(_saved_criterion(checkpoint)), _losses(criterion)
    if before and before != now and checkpoint.get("last_optimizer_state"):
        raise InputError(
            f"{name}: its optimizer is for {before}, expected {now}; --reset-optimizer takes the "
            "weights without it"
        )


def starting_checkpoint(args: Namespace) -> tuple[str, Path | None]:
    """Return the checkpoint that ``fairseq-train`` will start from, and the flag that names it.

    No flag for what an earlier run left in ``--save-dir``; no path for training from nothing.

    Raises:
        InputError: Flags contradict each other.
    """
    suffix = args.checkpoint_suffix or ""
    finetune_from = args.finetune_from_model
    if finetune_from:
        for name in RESETS:
            if getattr(args, name):
                raise InputError(
                    f"--finetune-from-model with --{name.replace('_', '-')}: expected one of them, "
                    "as --finetune-from-model takes nothing but the weights"
                )
    if args.restore_file != DEFAULT_RESTORE_FILE:
        if finetune_from:
            raise InputError(
                "--finetune-from-model with --restore-file: expected one of them, to take the "
                "weights alone or the whole state of training"
            )
        return "--restore-file", Path(args.restore_file.replace(".pt", f"{suffix}.pt"))
    last = Path(args.save_dir) / f"checkpoint_last{suffix}.pt"
    if last.exists():
        if finetune_from:
            logger.info("going on from %s, not from --finetune-from-model %s", last, finetune_from)
        return "", last
    if getattr(args, "continue_once", None):
        return "--continue-once", Path(args.continue_once)
    return "--finetune-from-model", Path(finetune_from) if finetune_from else None


def _misfit(model: BaseFairseqModel, weights: dict[str, Any]) -> str | None:
    """Say what of a checkpoint's weights does not fit the model, or return ``None``."""
    weights = dict(weights)
    model.upgrade_state_dict(weights)  # names of older versions, as in loading
    own = model.state_dict()
    question = "is this its --arch and --criterion?"
    for name in own:
        if name not in weights:
            return f"has no weight {name}; {question}"
    for name in weights:
        if name not in own:
            return f"has a weight {name}, expected none; {question}"
    for name, weight in own.items():
        shape = weights[name].shape if isinstance(weights[name], Tensor) else None
        if shape != weight.shape:
            return (
                f"{name} is {'no tensor' if shape is None else tuple(shape)}, expected "
                f"{tuple(weight.shape)}; is this its data folder (vocabulary) and model?"
            )
    return None


def _saved_criterion(checkpoint: dict[str, Any]) -> Any:
    """Return the flags of the criterion of a checkpoint, ``None`` where it has none."""
    return checkpoint.get("args") or (checkpoint.get("cfg") or {}).get("criterion")


def _losses(criterion: Any) -> str:
    """Return the flags that decide which parameters have a loss, as they are given."""
    flags = vars(criterion) if isinstance(criterion, Namespace) else dict(criterion or {})
    names = {
        "--criterion": flags.get("_name") or flags.get("criterion"),
        "--underlying-criterion": flags.get("underlying_criterion"),
    }
    return " ".join(f"{flag} {name}" for flag, name in names.items() if name)
