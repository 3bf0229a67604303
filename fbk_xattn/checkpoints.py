"""Checkpoints: which classes one may hold, and the last ones of a folder."""

from __future__ import annotations

import argparse
import collections
import re
import typing
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import omegaconf
import torch

from fbk_xattn.errors import InputError


def allow_checkpoint_classes() -> None:
    """Let ``torch.load`` read fairseq's checkpoints without letting them run code.

    torch refuses to unpickle anything but tensors and the classes on its list. fairseq's
    checkpoints hold their flags as an ``argparse.Namespace`` or an omegaconf container, and scores
    as numpy scalars; those classes are added, and nothing else.
    """
    containers: list[Any] = [
        argparse.Namespace,
        collections.defaultdict,
        dict,
        list,
        int,
        typing.Any,
        typing.Dict,  # noqa: UP006 - omegaconf writes these two for containers of any type
        typing.List,  # noqa: UP006
        omegaconf.base.ContainerMetadata,
        omegaconf.base.Metadata,
        omegaconf.dictconfig.DictConfig,
        omegaconf.listconfig.ListConfig,
        omegaconf.nodes.AnyNode,
    ]
    arrays: list[Any] = [np.dtype, np.ndarray, *{type(np.dtype(kind)) for kind in "?bhilqBHILQefd"}]
    # What numpy pickles its scalars and arrays with; version 1 and 2 name it differently.
    scalar = np.float64(0).__reduce__()[0]
    reconstruct = np.zeros(0).__reduce__()[0]
    functions: list[Any] = [
        (function, f"numpy.{core}.multiarray.{name}")
        for function, name in ((scalar, "scalar"), (reconstruct, "_reconstruct"))
        for core in ("core", "_core")
    ]
    torch.serialization.add_safe_globals([*containers, *arrays, *functions])


def load_checkpoint(path: Path | str, peek: bool = False) -> dict[str, Any]:
    """Read a fairseq checkpoint onto the CPU.

    Args:
        path: Checkpoint file.
        peek: Whether to leave the weights on the disk until they are used, which makes a mere
            check cheap.

    Raises:
        InputError: Missing, damaged, or holding a class that is not allowed.
    """
    allow_checkpoint_classes()
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such checkpoint")
    try:
        checkpoint = torch.load(
            path, map_location="cpu", weights_only=True, mmap=peek and zipfile.is_zipfile(path)
        )
    except Exception as error:
        raise InputError(f"{path}: unreadable checkpoint ({_reason(error)})") from None
    if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get("model"), dict):
        raise InputError(f"{path}: not a checkpoint of fairseq, expected an entry 'model'")
    return checkpoint


def _reason(error: Exception) -> str:
    """Say what of torch's error is about the file; the rest is how to switch the check off."""
    refused = re.search(r"GLOBAL (\S+)", str(error))
    if refused:
        return f"it holds {refused[1]}, expected tensors and flags only"
    detail = str(error).partition("WeightsUnpickler error:")[2] or str(error)
    return f"damaged or cut short: {[*detail.strip().splitlines(), type(error).__name__][0]}"


# How fairseq names the checkpoints of the ends of epochs, and those of every so many updates.
_NAMES = {
    "epoch": ("checkpointEPOCH.pt", re.compile(r"checkpoint([0-9]+)\.pt")),
    "update": ("checkpoint_EPOCH_UPDATE.pt", re.compile(r"checkpoint_([0-9]+)_([0-9]+)\.pt")),
}


def last_checkpoints(folder: Path, by: str, n: int, upper_bound: int | None = None) -> list[Path]:
    """Return the last checkpoints that fairseq wrote to a folder.

    ``checkpoint_best.pt``, ``checkpoint_last.pt``, ``checkpoint.best_*`` and files that are being
    written do not count.

    Args:
        folder: What ``fairseq-train`` has as ``--save-dir``.
        by: ``epoch`` for those of the ends of epochs, ``update`` for those of
            ``--save-interval-updates``.
        n: How many, at least 1.
        upper_bound: Last epoch or update to take, by default the last there is.

    Returns:
        ``n`` files, the oldest first: 9 before 10.

    Raises:
        InputError: ``n`` is below 1, no such folder, or fewer than ``n`` there.
    """
    if n < 1:
        raise InputError(f"--num-{by}-checkpoints {n}: expected at least 1")
    if not folder.is_dir():
        raise InputError(f"{folder}: not a folder, expected one for --num-{by}-checkpoints")
    checkpoints = [
        path
        for number, path in _numbered_checkpoints(folder, by)
        if upper_bound is None or number <= upper_bound
    ]
    if len(checkpoints) >= n:
        return checkpoints[-n:]
    until = "" if upper_bound is None else f" up to {by} {upper_bound}"
    message = (
        f"{folder}: found {len(checkpoints)} checkpoints by {by} ({_NAMES[by][0]}){until}, "
        f"expected at least {n} for --num-{by}-checkpoints"
    )
    other = "update" if by == "epoch" else "epoch"
    others = len(_numbered_checkpoints(folder, other))
    if others:
        message += (
            f"; those by {other} ({_NAMES[other][0]}) are {others}, for --num-{other}-checkpoints"
        )
    raise InputError(message)


def _numbered_checkpoints(folder: Path, by: str) -> list[tuple[int, Path]]:
    """Return the checkpoints of a folder with their epochs or updates, in that order."""
    found = []
    try:
        for path in folder.iterdir():
            match = _NAMES[by][1].fullmatch(path.name)
            if match and path.is_file():
                # From the last number to the first: by update, and by epoch where it is the same.
                found.append((tuple(int(number) for number in reversed(match.groups())), path))
    except OSError as error:
        raise InputError(
            f"{folder}: cannot be read ({error.strerror}), expected a folder with checkpoints"
        ) from None
    return [(numbers[0], path) for numbers, path in sorted(found)]
