"""Checkpoints: which classes one may hold, and averages of several."""

from __future__ import annotations

import argparse
import collections
import re
import typing
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import omegaconf
import torch

from fbk_xattn.errors import InputError
from fbk_xattn.files import whole_file


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
    return [*detail.strip().splitlines(), type(error).__name__][0]


def average_checkpoints(paths: Sequence[Path | str], output: Path | str) -> None:
    """Write the mean of several checkpoints' weights, without optimizer state.

    Args:
        paths: Checkpoints of one model.
        output: Checkpoint to write, all of it or nothing; flags are those of the last of ``paths``.

    Raises:
        InputError: A checkpoint is unreadable or of another model, or ``output`` cannot be
            written.
    """
    sums: dict[str, torch.Tensor] = {}
    checkpoint: dict[str, Any] = {}
    for path in paths:
        checkpoint = load_checkpoint(path)
        weights = checkpoint["model"]
        shapes = {name: tensor.shape for name, tensor in weights.items()}
        if sums and shapes != {name: tensor.shape for name, tensor in sums.items()}:
            raise InputError(f"{path}: weights of another model than {paths[0]}")
        for name, tensor in weights.items():
            sums[name] = sums.get(name, 0) + tensor.double()
    checkpoint["model"] = {
        name: (total / len(paths)).to(checkpoint["model"][name].dtype)
        for name, total in sums.items()
    }
    checkpoint["last_optimizer_state"] = None
    with whole_file(Path(output)) as temporary:
        torch.save(checkpoint, temporary)
