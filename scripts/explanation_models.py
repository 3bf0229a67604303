"""What the benchmarks of explanations explain: models of the presets and made-up utterances."""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fairseq import checkpoint_utils, options, tasks
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq.models import FairseqEncoderDecoderModel
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

import fbk_xattn.plugin  # noqa: F401
from fbk_xattn.data.features import N_BINS
from fbk_xattn.explain import Explainer, Utterance
from fbk_xattn.generation.teacher_forcing import teacher_force
from fbk_xattn.models.presets import PRESETS
from fbk_xattn.tasks.options import ExplanationOptions, add_explanation_args
from scripts.benchmark_training import ROOT, THREE_LOSSES, write_data_folder

PAD, EOS, LANGUAGE_TAG = 1, 2, 4  # fairseq's own four symbols come first, then what we write

# Preset to the flags of fairseq-train and the size of the vocabulary.
MODELS = {
    name.removeprefix("conformer_joint_ctc_"): (f"--arch {name}", size)
    for name, size in PRESETS.items()
} | {
    "tiny": (  # for tests
        "--arch conformer_joint_ctc --encoder-layers 2 --decoder-layers 1 --ctc-encoder-layer 1 "
        "--encoder-embed-dim 16 --decoder-ffn-embed-dim 32 --encoder-attention-heads 2 "
        "--decoder-attention-heads 2 --conv-channels 16 --conformer-conv-kernel-size 7",
        60,
    )
}


def add_model_args(parser: argparse.ArgumentParser) -> None:
    """Add the flags that choose a model."""
    add = parser.add_argument
    add("--preset", choices=MODELS, default="base")
    add("--vocabulary-size", type=int, default=0, help="default: that of the preset")
    add("--cpu", action="store_true", help="leave the GPU alone")
    add("--seed", type=int, default=1)


def device_of(args: argparse.Namespace) -> torch.device:
    """Return the GPU if there is one and it may be used."""
    return torch.device("cuda" if torch.cuda.is_available() and not args.cpu else "cpu")


def device_name(device: torch.device) -> str:
    """Return what to print."""
    return torch.cuda.get_device_name() if device.type == "cuda" else "CPU"


def synchronise(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def training_config(folder: Path, preset: str, vocabulary_size: int, seed: int) -> Any:
    """Write a vocabulary and data config, and return fairseq's configuration to train with them."""
    flags, own_size = MODELS[preset]
    write_data_folder(folder, vocabulary_size or own_size)
    argv = [
        str(folder), "--user-dir", str(ROOT / "fbk_xattn"), "--task", "speech_to_text_ctc",
        *flags.split(), *THREE_LOSSES.split(), "--optimizer", "adam", "--lr", "1e-4",
        "--lr-scheduler", "fixed", "--max-update", "1", "--cpu", "--seed", str(seed),
        "--distributed-world-size", "1",
        "--save-dir", str(folder),
    ]  # fmt: skip
    parsed = options.parse_args_and_arch(options.get_training_parser(), argv)
    return convert_namespace_to_omegaconf(parsed)


def random_model(args: argparse.Namespace) -> FairseqEncoderDecoderModel:
    """Return a model of a preset with random weights, in evaluation mode."""
    with tempfile.TemporaryDirectory() as folder:
        config = training_config(Path(folder), args.preset, args.vocabulary_size, args.seed)
        torch.manual_seed(args.seed)
        task = tasks.setup_task(config.task)
        return task.build_model(config.model).to(device_of(args)).eval()


def load_model(path: str, data: str | None, device: torch.device) -> FairseqEncoderDecoderModel:
    """Return the model of a checkpoint, in evaluation mode.

    Args:
        path: Checkpoint.
        data: Folder with its vocabulary, by default the one it was trained on.
        device: Where to put it.
    """
    overrides = {} if data is None else {"data": data, "config_yaml": "config.yaml"}
    (model,), _, _ = checkpoint_utils.load_model_ensemble_and_task([path], overrides)
    return model.to(device).eval()


def made_up_features(rng: np.random.Generator, n_frames: int) -> NDArray[np.float32]:
    """Return features with patches of energy, as superpixels expect, normalised as by CMVN."""
    noise = rng.standard_normal((n_frames, N_BINS))
    features = gaussian_filter(noise, sigma=(4, 2)) + 0.02 * noise
    normalised = (features - features.mean(axis=0)) / features.std(axis=0)
    return np.asarray(normalised, dtype=np.float32)


def made_up_hypothesis(rng: np.random.Generator, n_tokens: int, n_symbols: int) -> NDArray[Any]:
    """Return token indices: a language tag, text, eos."""
    return np.array([LANGUAGE_TAG, *rng.integers(5, n_symbols - 1, n_tokens - 2), EOS])


@torch.no_grad()
def utterance_of(
    model: FairseqEncoderDecoderModel,
    name: str,
    features: NDArray[np.float32] | torch.Tensor,
    hypothesis: NDArray[np.integer] | torch.Tensor,
) -> Utterance:
    """Encode an utterance and force the decoder along a hypothesis, as ``fairseq-generate`` does.

    Args:
        model: In float32 and evaluation mode.
        name: Id of the utterance.
        features: ``(T, F)``.
        hypothesis: ``(S,)`` token indices, eos last.
    """
    device = next(model.parameters()).device
    inputs = torch.as_tensor(features).to(device)
    tokens = torch.as_tensor(hypothesis).long().to(device)
    encoder_out = model.encoder(inputs[None], torch.tensor([len(inputs)], device=device))
    (view,) = teacher_force(model, encoder_out, [tokens], PAD, EOS)
    return Utterance(name, inputs, view.encoder_out, view.prev_output_tokens, view.logits)


def default_explainers(targets: list[str]) -> dict[str, Explainer]:
    """Return the methods that ``fairseq-generate`` explains with when no flag says otherwise."""
    parser = argparse.ArgumentParser()
    add_explanation_args(parser)
    args = parser.parse_args(["--attribution-dir", "unused", "--explain", *targets])
    args.seed = 1
    chosen = ExplanationOptions.from_args(args)
    explainers = [] if chosen is None else chosen.explainers()
    return {e.target: e for e in explainers if isinstance(e, Explainer)}


def segmented(explainer: Explainer, utterance: Utterance) -> Explainer:
    """Return a method that knows the segments of an utterance: nothing but the mask loop."""
    levels = explainer.segmenter(utterance)
    return dataclasses.replace(explainer, segmenter=lambda _: levels)
