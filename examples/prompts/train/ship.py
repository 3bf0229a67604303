"""Makes the shipped model of a trained one: half precision, no paths, in parts that git takes.

    python -m examples.prompts.train.ship CHECKPOINT DATA MODEL

CHECKPOINT is ``SAVE_DIR/model.pt`` of ``train.sh``, DATA what it was trained on. MODEL gets
``model.pt.1``, ``model.pt.2`` and so on (``cat model.pt.* > model.pt`` joins them), the checksum of
the joined file, vocabulary and ``config.yaml``.
"""

from __future__ import annotations

import argparse
import hashlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import omegaconf
import torch

from fbk_xattn.checkpoints import load_checkpoint
from fbk_xattn.errors import InputError
from fbk_xattn.files import whole_file

PART = 13_000_000  # bytes
MAX_PARTS = 9  # cat model.pt.* would join the tenth after the first
DATA_FILES = ("config.yaml", "dict.txt", "spm.model")


def shipped(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """Return what is needed of a checkpoint to generate with it.

    Args:
        checkpoint: Of fairseq.

    Returns:
        Its flags, with the last part of each absolute path, and its weights, floating-point ones
        in half precision. Tied weights stay tied.

    Raises:
        InputError: A weight is no number or too large for half precision.
    """
    halves: dict[tuple[Any, ...], torch.Tensor] = {}
    weights = {}
    for name, tensor in checkpoint["model"].items():
        place = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
        if place not in halves or not tensor.numel():
            halves[place] = _half(name, tensor)
        weights[name] = halves[place]
    # fairseq takes a checkpoint without the history for one of an old format.
    history = (checkpoint.get("optimizer_history") or [{}])[-1]
    return {
        "args": None,
        "cfg": _without_folders(checkpoint.get("cfg")),
        "model": weights,
        "optimizer_history": [
            {
                "criterion_name": history.get("criterion_name", ""),
                "optimizer_name": history.get("optimizer_name", ""),
                "lr_scheduler_state": {},
                "num_updates": history.get("num_updates", 0),
            }
        ],
        "task_state": {},
        # For --finetune-from-model, which counts from there.
        "extra_state": {"train_iterator": {"epoch": 1}},
        "last_optimizer_state": None,
    }


def _half(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """Return a copy with memory of its own, which is all that ``torch.save`` then writes."""
    if not tensor.is_floating_point():
        return tensor.clone()
    half = tensor.to(torch.float16, copy=True)
    if not torch.isfinite(half).all():
        raise InputError(f"weight {name}: expected numbers that half precision holds (to 65504)")
    return half


def _without_folders(value: Any) -> Any:
    if isinstance(value, omegaconf.DictConfig | omegaconf.ListConfig):
        value = omegaconf.OmegaConf.to_container(value)
    if isinstance(value, argparse.Namespace):
        return argparse.Namespace(**_without_folders(vars(value)))
    if isinstance(value, dict):
        return {key: _without_folders(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_without_folders(each) for each in value]
    if isinstance(value, str) and Path(value).is_absolute():
        return Path(value).name
    return value


def write(checkpoint: Path, data: Path, folder: Path) -> int:
    """Write the shipped model.

    Args:
        checkpoint: To make it of.
        data: Folder with :data:`DATA_FILES`.
        folder: To write to; parts of an earlier model are removed.

    Returns:
        Bytes of the joined file.

    Raises:
        InputError: A file is missing or unreadable, the model is too large, or ``folder`` cannot be
            written.
    """
    for name in DATA_FILES:
        if not (data / name).is_file():
            raise InputError(f"{data / name}: no such file, expected what the model was trained on")
    buffer = io.BytesIO()
    torch.save(shipped(load_checkpoint(checkpoint)), buffer)
    content = buffer.getvalue()
    starts = range(0, len(content), PART)
    if len(starts) > MAX_PARTS:
        raise InputError(
            f"{checkpoint}: makes {len(starts)} parts of {PART} bytes, expected at most {MAX_PARTS}"
        )
    files = {name: (data / name).read_bytes() for name in DATA_FILES}
    files["SHA256SUMS"] = f"{hashlib.sha256(content).hexdigest()}  model.pt\n".encode("ascii")
    for number, start in enumerate(starts, 1):
        files[f"model.pt.{number}"] = content[start : start + PART]
    for part in folder.glob("model.pt.*"):
        part.unlink()
    for name, written in files.items():
        with whole_file(folder / name) as temporary:
            temporary.write_bytes(written)
    return len(content)


def main(arguments: Sequence[str] | None = None) -> None:
    """Ship the model."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT")
    parser.add_argument("data", type=Path, metavar="DATA")
    parser.add_argument("model", type=Path, metavar="MODEL", help="folder to write")
    args = parser.parse_args(arguments)
    try:
        n_bytes = write(args.checkpoint, args.data, args.model)
    except InputError as error:
        raise SystemExit(f"error: {error}") from None
    print(f"{args.model}: {n_bytes / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
