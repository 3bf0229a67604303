"""Checkpoints: which classes one may hold, and averages of several."""

from __future__ import annotations

import argparse
import collections
import typing
from collections.abc import Sequence
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


def load_checkpoint(path: Path | str) -> dict[str, Any]:
    """Read a fairseq checkpoint onto the CPU.

    Raises:
        InputError: Missing, damaged, or holding a class that is not allowed.
    """
    allow_checkpoint_classes()
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such checkpoint")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        first_line = str(error).strip().splitlines()[0]
        raise InputError(f"{path}: unreadable checkpoint ({first_line})") from None
    if not isinstance(checkpoint, dict) or "model" not in checkpoint:
        raise InputError(f"{path}: not a checkpoint of fairseq, expected an entry 'model'")
    return checkpoint


def average_checkpoints(paths: Sequence[Path | str], output: Path | str) -> None:
    """Write the mean of several checkpoints' weights, without optimizer state.

    Args:
        paths: Checkpoints of one model.
        output: Checkpoint to write, all of it or nothing; flags are those of the last of ``paths``.

    Raises:
        InputError: A checkpoint is unreadable, or of another model.
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
    output = Path(output)
    temporary = output.with_name(f".{output.name}.tmp")
    torch.save(checkpoint, temporary)
    temporary.replace(output)
