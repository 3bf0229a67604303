"""The published model, its data, and what the published system computed with it."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

FOLDER = Path(__file__).parent
CHECKPOINT = FOLDER / "checkpoint_joint.pt"


@cache
def load() -> tuple[Any, Any, Any]:
    """Load model and task as fairseq's commands do.

    Returns:
        The model in evaluation mode, the task with dataset ``test``, the flags of the checkpoint.
        All tests share them: do not change them.
    """
    import fbk_xattn.plugin  # noqa: F401  # isort: skip
    from fairseq.checkpoint_utils import load_model_ensemble_and_task

    overrides = {"data": str(FOLDER / "data"), "config_yaml": "config.yaml"}
    (model,), flags, task = load_model_ensemble_and_task([str(CHECKPOINT)], overrides)
    task.load_dataset("test")
    return model.eval(), task, flags


@cache
def batch(*utterances: int) -> dict[str, Any]:
    """Return the batch of these utterances (rows of ``test.tsv``)."""
    dataset = load()[1].datasets["test"]
    return dataset.collater([dataset[i] for i in utterances])


@torch.no_grad()
def utterance_of(number: int, tokens: list[int] | None = None) -> Any:
    """Return an utterance to explain, by default with its reference text as hypothesis."""
    from fbk_xattn.explain import Utterance

    model, task, _ = load()
    sample = batch(number)
    net_input = sample["net_input"]
    encoder_out = model.encoder(net_input["src_tokens"], net_input["src_lengths"])
    hypothesis = sample["target"][0].tolist() if tokens is None else tokens
    inputs = torch.tensor([task.target_dictionary.eos(), *hypothesis[:-1]])
    logits = model.decoder(inputs[None], encoder_out=encoder_out)[0][0]
    return Utterance(
        id=task.datasets["test"].ids[number],
        features=net_input["src_tokens"][0],
        encoder_out=encoder_out["encoder_out"][0][:, 0],
        prev_output_tokens=inputs,
        logits=logits,
    )


@cache
def arrays(name: str) -> dict[str, Any]:
    """Return the arrays of ``name.npz``."""
    with np.load(FOLDER / f"{name}.npz") as file:
        return {key: file[key] for key in file.files}


@cache
def values(name: str) -> dict[str, Any]:
    """Return what is in ``name.json``."""
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


@cache
def saliency(number: int) -> Any:
    """Return the input saliency of an utterance, ``(S, T, F)``, language tag and eos included."""
    planes, cells = (arrays("saliency")[f"{number}/{part}"] for part in ("planes", "cells"))
    # The bytes of the distinct maps of a cell over the tokens, and which of them each cell has.
    values = np.ascontiguousarray(planes.transpose(1, 2, 0)).view(np.float32)[..., 0]
    return values[:, np.cumsum(cells.ravel(), dtype=np.int64)].reshape(-1, *cells.shape)
