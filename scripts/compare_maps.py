"""How far explanations in half precision are from those in single precision.

The part of ``python -m scripts.benchmark_explain --compare-precision``.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fairseq import checkpoint_utils, options, tasks, utils
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq.models import FairseqEncoderDecoderModel
from numpy.typing import NDArray

from fbk_xattn.analysis.agreement import pearson_by_token
from fbk_xattn.explain import Explainer, Utterance
from fbk_xattn.explain.batching import perturbations_per_eval
from fbk_xattn.models.inference import inference_copy
from fbk_xattn.tasks.attribution_run import segment_saliency
from fbk_xattn.tasks.options import PRECISIONS
from scripts.benchmark_training import ROOT
from scripts.explanation_models import (
    default_explainers,
    device_name,
    device_of,
    load_model,
    made_up_hypothesis,
    utterance_of,
)

NUM_MASKS = 20_000
OTHER_MASKS = "fp32, other masks"


@dataclass
class Correlations:
    """Of the maps of one system with those of single precision, token by token."""

    values: list[float]
    tokens: list[str]

    def add(self, utterance: str, ours: NDArray[Any], reference: NDArray[Any]) -> None:
        """Add the tokens of an utterance: maps with the tokens first."""
        for number, value in enumerate(pearson_by_token(ours, reference)):
            self.values.append(float(value))
            self.tokens.append(f"{utterance}, token {number}")

    def row(self) -> str:
        """Return the cells of a table: tokens, median, minimum and where that is."""
        if not np.isfinite(self.values).any():
            return f"0 of {len(self.values)} | - | - | -"
        defined = int(np.isfinite(self.values).sum())
        least = int(np.nanargmin(self.values))
        return (
            f"{defined} of {len(self.values)} | {np.nanmedian(self.values):.5f} "
            f"| {self.values[least]:.5f} | {self.tokens[least]}"
        )


def compare_maps(args: argparse.Namespace) -> None:
    """Explain in every precision and print the table; ``args`` are the benchmark's."""
    device = device_of(args)
    n_masks = args.num_masks or NUM_MASKS
    model, utterances = (
        given_utterances(args, device) if args.features else decoded_utterances(args, device)
    )
    explainers = default_explainers(args.targets)
    precisions = [name for name in args.precision or ["bf16", "fp16"] if name != "fp32"]
    # Name to precision and seed of the masks.
    systems = {name: (name, args.seed) for name in precisions}
    if args.other_masks:
        systems[OTHER_MASKS] = ("fp32", args.seed + 1)
    copies = {name: inference_copy(model, PRECISIONS[name]) for name in ("fp32", *precisions)}
    rows = {(target, name): Correlations([], []) for target in explainers for name in systems}
    n_utterances = 0
    for utterance in utterances:
        n_utterances += 1
        for target, explainer in explainers.items():

            def explain(precision: str, seed: int) -> NDArray[Any]:
                # Called before the loop goes on.
                return dense_map(copies[precision], explainer, utterance, n_masks, seed, args)  # noqa: B023

            reference = explain("fp32", args.seed)
            for name, (precision, seed) in systems.items():
                rows[target, name].add(utterance.id, explain(precision, seed), reference)
    print(
        f"{device_name(device)}, torch {torch.__version__}, {Path(args.checkpoint).name}, "
        f"{n_utterances} utterances, N {n_masks}: Pearson correlation of the map of each token "
        "with that in fp32 (a map that is the same everywhere has none)\n"
    )
    print(
        "| target | precision | tokens | median | minimum | minimum at |\n"
        "| --- | --- | --- | --- | --- | --- |"
    )
    for (target, name), row in rows.items():
        print(f"| {target} | {name} | {row.row()} |")


def dense_map(
    model: FairseqEncoderDecoderModel,
    explainer: Explainer,
    utterance: Utterance,
    n_masks: int,
    seed: int,
    args: argparse.Namespace,
) -> NDArray[np.float32]:
    """Return the saliency map, ``(S, T, F)`` or ``(S, T')``."""
    batch = args.perturbations_per_eval or perturbations_per_eval(utterance, explainer.target)
    return segment_saliency(explainer.explain(model, utterance, n_masks, seed, batch)).dense()


def given_utterances(
    args: argparse.Namespace, device: torch.device
) -> tuple[FairseqEncoderDecoderModel, Iterator[Utterance]]:
    """Return the model and an utterance for each of ``--features``, with made-up hypotheses."""
    model = load_model(args.checkpoint, args.data, device)
    rng = np.random.default_rng(args.seed)
    n_symbols = model.decoder.embed_tokens.num_embeddings

    def utterances() -> Iterator[Utterance]:
        for name in args.features:
            features = np.load(Path(name)).astype(np.float32)
            hypothesis = made_up_hypothesis(rng, args.tokens, n_symbols)
            yield utterance_of(model, Path(name).stem, features, hypothesis)

    return model, utterances()


def decoded_utterances(
    args: argparse.Namespace, device: torch.device
) -> tuple[FairseqEncoderDecoderModel, Iterator[Utterance]]:
    """Return the model and utterances of a data folder with what beam search makes of them.

    As ``fairseq-generate`` does it, one utterance at a time; they are taken at equal distances over
    the split, of which manifests are often sorted.
    """
    argv = [
        args.data, "--user-dir", str(ROOT / "fbk_xattn"), "--task", "speech_to_text_ctc",
        "--gen-subset", args.gen_subset, "--path", args.checkpoint, "--beam", str(args.beam),
        "--no-repeat-ngram-size", "5", "--prefix-size", "1",
        *(["--cpu"] if device.type == "cpu" else []),
    ]  # fmt: skip
    parsed = options.parse_args_and_arch(options.get_generation_parser(), argv)
    config = convert_namespace_to_omegaconf(parsed)
    task = tasks.setup_task(config.task)
    if not task.data_cfg.prepend_tgt_lang_tag:
        config.generation.prefix_size = 0
    (model,), _ = checkpoint_utils.load_model_ensemble([args.checkpoint], task=task)
    model = model.to(device).eval()
    task.load_dataset(args.gen_subset)
    dataset = task.dataset(args.gen_subset)
    generator = task.build_generator([model], config.generation)
    n_utterances = min(args.limit, len(dataset))
    chosen = np.linspace(0, len(dataset) - 1, n_utterances).astype(int).tolist()

    def utterances() -> Iterator[Utterance]:
        for index in chosen:
            sample = dataset.collater([dataset[index]])
            for name, reason in sample.get("failures", {}).items():
                raise SystemExit(f"utterance {name!r}: {reason}")
            sample = utils.move_to_cuda(sample) if device.type == "cuda" else sample
            prefix = sample["target"][:, : config.generation.prefix_size]
            prefix_tokens = prefix if config.generation.prefix_size else None
            ((best, *_),) = task.inference_step(generator, [model], sample, prefix_tokens)
            features = sample["net_input"]["src_tokens"][0]
            yield utterance_of(model, dataset.ids[index], features, best["tokens"])

    return model, utterances()
