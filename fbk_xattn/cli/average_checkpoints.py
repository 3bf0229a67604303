"""``fbk-xattn average-checkpoints``: the mean of several checkpoints."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``average-checkpoints``."""
    parser = subparsers.add_parser(
        "average-checkpoints",
        help="average the weights of checkpoints",
        description="Write a checkpoint with the mean of the weights of several checkpoints of one "
        "training, without optimizer state.",
        allow_abbrev=False,
    )
    parser.add_argument("checkpoints", metavar="CKPT", type=Path, nargs="+", help="to average")
    parser.add_argument(
        "--output", metavar="CKPT", type=Path, required=True, help="checkpoint to write"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Average.

    Raises:
        InputError: A checkpoint is unreadable or of another model.
    """
    from fbk_xattn.checkpoints import average_checkpoints

    average_checkpoints(args.checkpoints, args.output)
    print(f"{args.output}: mean of {len(args.checkpoints)} checkpoints")
    return 0
