"""``fbk-xattn average-checkpoints``: the mean of several checkpoints."""

from __future__ import annotations

import argparse
from pathlib import Path

from fbk_xattn.errors import InputError


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``average-checkpoints``."""
    parser = subparsers.add_parser(
        "average-checkpoints",
        help="average the weights of checkpoints",
        description="Write a checkpoint with the mean of the weights of several checkpoints of one "
        "training, without optimizer state, and print which ones they were.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--inputs",
        metavar="PATH",
        type=Path,
        nargs="+",
        required=True,
        help="checkpoints to average, or the folder with them for --num-epoch-checkpoints and "
        "--num-update-checkpoints",
    )
    parser.add_argument(
        "--output", metavar="CKPT", type=Path, required=True, help="checkpoint to write"
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--num-epoch-checkpoints",
        metavar="N",
        type=int,
        help="average the last N of the folder that were saved at the end of an epoch "
        "(checkpointEPOCH.pt)",
    )
    which.add_argument(
        "--num-update-checkpoints",
        metavar="N",
        type=int,
        help="average the last N of the folder that were saved every so many updates "
        "(checkpoint_EPOCH_UPDATE.pt)",
    )
    parser.add_argument(
        "--checkpoint-upper-bound",
        metavar="N",
        type=int,
        help="leave out checkpoints of the folder after this epoch or update (default: none)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Average.

    Raises:
        InputError: Inputs and flags do not fit, the folder has too few checkpoints, one is
            unreadable or of another model, or the output cannot be written.
    """
    from fbk_xattn.averaging import average_checkpoints

    paths = _chosen(args)
    average_checkpoints(paths, args.output)
    for path in paths:
        print(path)
    print(f"{args.output}: mean of {len(paths)} checkpoints")
    return 0


def _chosen(args: argparse.Namespace) -> list[Path]:
    """Return the checkpoints to average, in order."""
    from fbk_xattn.checkpoints import last_checkpoints

    asked = {"epoch": args.num_epoch_checkpoints, "update": args.num_update_checkpoints}
    for by, n in asked.items():
        if n is None:
            continue
        if len(args.inputs) > 1:
            raise InputError(
                f"--inputs: {len(args.inputs)} paths, expected one folder for "
                f"--num-{by}-checkpoints"
            )
        return last_checkpoints(args.inputs[0], by, n, args.checkpoint_upper_bound)
    if args.checkpoint_upper_bound is not None:
        raise InputError(
            "--checkpoint-upper-bound: only for the checkpoints of a folder, expected "
            "--num-epoch-checkpoints or --num-update-checkpoints with it"
        )
    for path in args.inputs:
        if path.is_dir():
            raise InputError(
                f"--inputs {path}: is a folder, expected files, or --num-epoch-checkpoints or "
                "--num-update-checkpoints to choose from it"
            )
    return args.inputs
