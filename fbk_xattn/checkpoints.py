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


def average_checkpoints(paths: Sequence[Path | str], output: Path | str) -> None:
    """Write the mean of several checkpoints' weights, without optimizer state.

    One checkpoint is read after the other, so memory holds the weights of two at most: the mean so
    far and those that go into it. Optimizer states stay on the disk, but for files in the format
    before torch 1.6, which can only be read whole; theirs are dropped at once.

    Floating-point weights keep their precision. Whole numbers are rounded down; booleans, which
    have no mean, are those of the last checkpoint.

    Args:
        paths: Checkpoints of one model, at least one.
        output: Checkpoint to write, all of it or nothing; flags are those of the last of ``paths``.

    Raises:
        InputError: A checkpoint is unreadable or of another model, or ``output`` is one of
            ``paths`` or cannot be written.
    """
    output = Path(output)
    if output.resolve() in {Path(path).resolve() for path in paths}:
        raise InputError(f"{output}: is one of the checkpoints to average, expected another file")
    mean = _WeightsMean()
    checkpoint: dict[str, Any] = {}
    for path in paths:
        checkpoint = load_checkpoint(path, peek=True)
        # Nothing heavy may be left in ``checkpoint`` when the next one is read.
        checkpoint["last_optimizer_state"] = None
        mean.add(checkpoint.pop("model"), path)
    checkpoint["model"] = mean.weights()
    with whole_file(output) as temporary:
        _save(checkpoint, temporary)


class _WeightsMean:
    """Mean of the weights of checkpoints that are seen one at a time.

    What is kept is the mean, not the sum: it needs no more digits than the weights have, which
    spares the memory of a sum in float64, and that of identical checkpoints is exactly each of
    them. What a step rounds off is scaled down by the steps that follow. Half precision, too coarse
    for steps so small, has its mean in float32, and whole numbers have their sum instead.
    """

    def __init__(self) -> None:
        self._n = 0
        self._first: Path | str = ""
        self._kinds: dict[str, tuple[torch.Size, torch.dtype]] = {}
        self._means: dict[str, torch.Tensor] = {}

    @torch.no_grad()
    def add(self, weights: dict[str, Any], path: Path | str) -> None:
        """Take in the weights of the checkpoint ``path``.

        Raises:
            InputError: They differ from the first ones in their names, shapes or types.
        """
        kinds = _kinds(weights, path)
        if not self._n:
            self._kinds, self._first = kinds, path
        elif kinds != self._kinds:
            raise InputError(f"{path}: {_difference(kinds, self._kinds)} in {self._first}")
        self._n += 1
        for names in self._tied(weights):
            tensor = weights[names[0]]
            if self._n == 1:
                self._means.update(dict.fromkeys(names, _first_mean(tensor)))
            else:
                _move_mean(self._means[names[0]], tensor, self._n)

    def _tied(self, weights: dict[str, torch.Tensor]) -> list[list[str]]:
        """Return the names of each weight: tied ones have several names for the same memory.

        They share a mean as long as they are tied; the first checkpoint that does not tie them
        gives each a mean of its own.
        """
        names: dict[Any, list[str]] = {}
        for name, tensor in weights.items():
            place = (tensor.data_ptr(), tensor.stride(), *self._kinds[name])
            names.setdefault((id(self._means.get(name)), place), []).append(name)
        shared = set()
        for (mean, _), tied in names.items():
            if self._means and mean in shared:
                self._means.update(dict.fromkeys(tied, self._means[tied[0]].clone()))
            shared.add(mean)
        return list(names.values())

    def weights(self) -> dict[str, torch.Tensor]:
        """Return the mean in the types of the checkpoints; tied weights are still tied."""
        final: dict[int, torch.Tensor] = {}
        for name, mean in self._means.items():
            dtype = self._kinds[name][1]
            value = mean // self._n if _is_whole(dtype) else mean
            final[id(mean)] = value.to(dtype)
        return {name: final[id(mean)] for name, mean in self._means.items()}


def _kinds(weights: dict[str, Any], path: Path | str) -> dict[str, tuple[torch.Size, torch.dtype]]:
    """Return the shape and the type of each weight.

    Raises:
        InputError: A weight is not a tensor, or a sparse one.
    """
    for name, tensor in weights.items():
        if not isinstance(tensor, torch.Tensor) or tensor.layout != torch.strided:
            raise InputError(
                f"{path}: {name} in its entry 'model' is not a dense tensor, expected only those"
            )
    return {name: (tensor.shape, tensor.dtype) for name, tensor in weights.items()}


def _difference(
    kinds: dict[str, tuple[torch.Size, torch.dtype]],
    expected: dict[str, tuple[torch.Size, torch.dtype]],
) -> str:
    """Say what of two models' weights differs first, for ' in FILE' to follow."""
    for name, (shape, dtype) in expected.items():
        if name not in kinds:
            return f"has no weight {name}, expected the same as"
        if kinds[name][0] != shape:
            return f"shape of {name} is {tuple(kinds[name][0])}, expected {tuple(shape)} as"
        if kinds[name][1] != dtype:
            return f"type of {name} is {kinds[name][1]}, expected {dtype} as"
    unexpected = next(name for name in kinds if name not in expected)
    return f"has a weight {unexpected}, expected the same as"


def _is_whole(dtype: torch.dtype) -> bool:
    """Return whether the type is of whole numbers."""
    return not (dtype.is_floating_point or dtype.is_complex or dtype == torch.bool)


def _first_mean(tensor: torch.Tensor) -> torch.Tensor:
    """Return the tensor as the mean to start with, or the sum if it is of whole numbers."""
    dtype = tensor.dtype
    if _is_whole(dtype):
        dtype = torch.int64
    elif dtype.is_floating_point and dtype.itemsize < 4:
        dtype = torch.float32
    return tensor.to(dtype, copy=True)


def _move_mean(mean: torch.Tensor, tensor: torch.Tensor, n: int) -> None:
    """Make the mean of ``n - 1`` tensors (sum, of whole numbers) that of ``n``, in place.

    Args:
        mean: Mean so far, of the type that :func:`_first_mean` chose.
        tensor: The tensor to include, of the same shape.
        n: How many with it, at least 2.
    """
    tensor = tensor.to(mean.dtype)
    if mean.dtype == torch.bool:
        mean.copy_(tensor)
    elif _is_whole(mean.dtype):
        mean.add_(tensor)
    else:
        same = tensor == mean
        mean.lerp_(tensor, 1 / n)
        # Equal numbers stay as they are, which infinities and the sign of zero otherwise do not.
        torch.where(same, tensor, mean, out=mean)


def _save(checkpoint: dict[str, Any], path: Path) -> None:
    """Write a checkpoint.

    Raises:
        OSError: It cannot be written. ``torch.save`` itself makes a RuntimeError of that.
    """
    with path.open("wb") as file:
        try:
            torch.save(checkpoint, file)
        except RuntimeError as error:
            raise error.__context__ if isinstance(error.__context__, OSError) else error from None
