"""The mean of several checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from fbk_xattn.checkpoints import load_checkpoint
from fbk_xattn.errors import InputError
from fbk_xattn.files import whole_file


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
