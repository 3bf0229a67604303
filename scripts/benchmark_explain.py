"""Speed and memory of explanations, against the published way and against what the device can do.

    python -m scripts.benchmark_explain --baseline [--precision bf16 fp32] [--frames 1000] ...
    python -m scripts.benchmark_explain --compare-precision --checkpoint CKPT --data DATA

The first times the mask loop of one utterance, as ``fairseq-generate`` runs it, and with
``--baseline`` the published way (scripts/published_way.py) in the same process. The systems take
turns, so what slows the machine for a while slows all. Prints a Markdown table: medians over the
rounds, and the median of the ratios to the baseline of the same round. The floor is the rate at
which the model's parameters alone could be multiplied (scripts/gemm_floor.py). Segmentation is done
once for all and is not in the rates.

The second compares the maps of half precision with those of single precision on utterances of
``DATA``, as a model that was trained decodes them (scripts/compare_maps.py).
"""

from __future__ import annotations

import argparse
import logging
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from fairseq.models import FairseqEncoderDecoderModel

from fbk_xattn.explain import Explainer, Utterance
from fbk_xattn.explain.batching import perturbations_per_eval
from fbk_xattn.models.inference import inference_copy
from fbk_xattn.tasks.options import DEFAULT_PRECISION, PRECISIONS
from scripts.compare_maps import compare_maps
from scripts.explanation_models import (
    add_model_args,
    default_explainers,
    device_name,
    device_of,
    load_model,
    made_up_features,
    made_up_hypothesis,
    random_model,
    segmented,
    synchronise,
    utterance_of,
)
from scripts.gemm_floor import flops_per_mask, gemm_rate
from scripts.published_way import PublishedWay

BASELINE = "baseline, fp32"
# Masks of a round where no flag says so: seconds on a GPU, and on a CPU some more.
NUM_MASKS = {"cuda": 20_000, "cpu": 60}
BASELINE_MASKS = {"cuda": 512, "cpu": 32}


@dataclass
class System:
    """One way of explaining one target, and what was measured.

    Attributes:
        target: What is occluded.
        name: To print.
        dtype: In which the model runs.
        n_masks: Of a round.
        batch: Occluded copies in one pass of the model.
        n_warm_up: Masks of the first call, which compiles or chooses what is to be.
        run: Explains with a number of masks.
        model_bytes: Weights of its model.
        resident: Bytes on the device that it keeps between calls.
        warm_up: Seconds of the first call.
        seconds: Of each round.
        peak: Most bytes on the device at any time, of this system alone.
    """

    target: str
    name: str
    dtype: torch.dtype
    n_masks: int
    batch: int
    n_warm_up: int
    run: Callable[[int], object]
    model_bytes: int
    resident: int = 0
    warm_up: float = 0.0
    seconds: list[float] = field(default_factory=list)
    peak: int = 0

    @property
    def rates(self) -> list[float]:
        """Masks a second of each round."""
        return [self.n_masks / seconds for seconds in self.seconds]


def main() -> None:
    """Measure and print."""
    args = parse_args()
    logging.disable(logging.INFO)
    if args.compare_precision:
        compare_maps(args)
        return
    device = device_of(args)
    model = (
        load_model(args.checkpoint, args.data, device) if args.checkpoint else random_model(args)
    )
    utterance = made_up_utterance(model, args)
    explainers, notes = {}, []
    for target, explainer in default_explainers(args.targets).items():
        start = time.perf_counter()
        explainers[target] = segmented(explainer, utterance)
        notes.append(f"{target} {time.perf_counter() - start:.2f} s")
    systems = build_systems(model, utterance, explainers, args)
    rates = {dtype: gemm_rate(device, dtype) for dtype in {s.dtype for s in systems}}
    for _ in range(args.rounds):
        for system in systems:
            measure(system, device)
    print_table(systems, rates, model, utterance, args)
    print(f"\nSegmentation, not in the rates: {', '.join(notes)}")


def parse_args() -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add_model_args(parser)
    add("--checkpoint", help="fairseq checkpoint instead of random weights of the preset")
    add("--data", help="folder with the checkpoint's vocabulary (default: where it was trained)")
    add("--features", nargs="+", default=[], help=".npy (T, 80) after CMVN instead of made-up ones")
    add("--frames", type=int, default=1000, help="frames of made-up features")
    add("--tokens", type=int, default=30, help="tokens, language tag and eos included")
    add("--targets", nargs="+", choices=("input", "encoder"), default=["input", "encoder"])
    add("--precision", nargs="+", choices=PRECISIONS, help="default: the run's own choice")
    add("--num-masks", type=int, default=0, help="of a round (default: 20000 on a GPU)")
    add("--perturbations-per-eval", type=int, default=0, help="default: the run's own choice")
    add("--rounds", type=int, default=5, help="rounds, of which medians are printed")
    add("--baseline", action="store_true", help="measure the published way too")
    add("--baseline-masks", type=int, default=0, help="of a round (default: 512 on a GPU)")
    add("--baseline-batch", type=int, default=32, help="occluded copies in a batch")
    add("--compare-precision", action="store_true", help="compare maps instead of speed")
    add("--gen-subset", default="test", help="split of --data to compare on")
    add("--limit", type=int, default=20, help="utterances of the split to compare on")
    add("--beam", type=int, default=5)
    add("--other-masks", action="store_true", help="compare fp32 with itself on other masks too")
    args = parser.parse_args()
    if args.compare_precision and not (args.checkpoint and (args.data or args.features)):
        parser.error("--compare-precision needs --checkpoint, and --data or --features")
    return args


def made_up_utterance(model: FairseqEncoderDecoderModel, args: argparse.Namespace) -> Utterance:
    """Return an utterance with a made-up hypothesis, of given or made-up features."""
    rng = np.random.default_rng(args.seed)
    if args.features:
        features = np.load(Path(args.features[0])).astype(np.float32)
    else:
        features = made_up_features(rng, args.frames)
    n_symbols = model.decoder.embed_tokens.num_embeddings
    return utterance_of(model, "made-up", features, made_up_hypothesis(rng, args.tokens, n_symbols))


def build_systems(
    model: FairseqEncoderDecoderModel,
    utterance: Utterance,
    explainers: dict[str, Explainer],
    args: argparse.Namespace,
) -> list[System]:
    """Build what is compared, and run each once."""
    device = device_of(args)
    systems = []
    precisions = args.precision or [DEFAULT_PRECISION[device.type]]
    if args.baseline:
        for explainer in explainers.values():
            system = baseline_system(model, utterance, explainer, args)
            warm_up(system, device, 0)
            systems.append(system)
    for precision in precisions:
        before = allocated(device)
        copy = inference_copy(model, PRECISIONS[precision])
        kept = allocated(device) - before
        for explainer in explainers.values():
            system = our_system(model, copy, utterance, explainer, precision, args)
            warm_up(system, device, kept)
            systems.append(system)
    return sorted(systems, key=lambda system: args.targets.index(system.target))


def baseline_system(
    model: FairseqEncoderDecoderModel,
    utterance: Utterance,
    explainer: Explainer,
    args: argparse.Namespace,
) -> System:
    """Return the published way of explaining a target."""
    levels = explainer.segmenter(utterance)
    way = PublishedWay(model, utterance, levels, explainer.sampler, args.seed, args.baseline_batch)
    n_masks = args.baseline_masks or BASELINE_MASKS[device_of(args).type]
    return System(
        target=explainer.target,
        name=BASELINE,
        dtype=torch.float32,
        n_masks=n_masks,
        batch=args.baseline_batch,
        n_warm_up=min(n_masks, args.baseline_batch),
        run=lambda n: way.explain(explainer.target, n),
        model_bytes=n_bytes(model, torch.float32),
    )


def our_system(
    model: FairseqEncoderDecoderModel,
    copy: FairseqEncoderDecoderModel,
    utterance: Utterance,
    explainer: Explainer,
    precision: str,
    args: argparse.Namespace,
) -> System:
    """Return our way of explaining a target in one precision, that of ``copy``."""
    device = device_of(args)
    batch = args.perturbations_per_eval or perturbations_per_eval(utterance, explainer.target)
    n_masks = args.num_masks or NUM_MASKS[device.type]
    return System(
        target=explainer.target,
        name=f"ours, {precision}",
        dtype=PRECISIONS[precision],
        n_masks=n_masks,
        batch=batch,
        # On a GPU all of a round: what is compiled may depend on the sizes of its batches.
        n_warm_up=n_masks if device.type == "cuda" else min(n_masks, batch),
        run=lambda n: explainer.explain(copy, utterance, n, args.seed, batch),
        model_bytes=n_bytes(model, PRECISIONS[precision]),
    )


def n_bytes(model: FairseqEncoderDecoderModel, dtype: torch.dtype) -> int:
    """Return the size of the weights that explanations need, in some precision."""
    parts = (model.encoder, model.decoder)
    return sum(p.numel() for part in parts for p in part.parameters()) * dtype.itemsize


def allocated(device: torch.device) -> int:
    """Return the bytes in use on the device."""
    return torch.cuda.memory_allocated() if device.type == "cuda" else 0


def warm_up(system: System, device: torch.device, kept: int) -> None:
    """Run a system for the first time; ``kept`` is what its model took on the device before."""
    before = allocated(device)
    start = time.perf_counter()
    system.run(system.n_warm_up)
    synchronise(device)
    system.warm_up = time.perf_counter() - start
    # A model that systems share was not allocated for this one alone, but this one needs it too.
    system.resident = max(system.model_bytes, kept) + allocated(device) - before


def measure(system: System, device: torch.device) -> None:
    """Time one round, and keep its peak of memory."""
    before = allocated(device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    synchronise(device)
    start = time.perf_counter()
    system.run(system.n_masks)
    synchronise(device)
    system.seconds.append(time.perf_counter() - start)
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated() - before + system.resident
        system.peak = max(system.peak, peak)


def print_table(
    systems: list[System],
    gemm_rates: dict[torch.dtype, float],
    model: FairseqEncoderDecoderModel,
    utterance: Utterance,
    args: argparse.Namespace,
) -> None:
    """Print what was measured."""
    device = device_of(args)
    what = f"checkpoint {Path(args.checkpoint).name}" if args.checkpoint else args.preset
    ours = [system for system in systems if system.name != BASELINE]
    batches = ", ".join(dict.fromkeys(f"{s.target} {s.batch}" for s in ours))
    baselines = {system.target: system for system in systems if system.name == BASELINE}
    plain = next(iter(baselines.values()), None)
    n_masks, batch = ("", "") if plain is None else (plain.n_masks, plain.batch)
    measured = ", ".join(
        f"{name} {gemm_rates[dtype] / 1e12:.3g}"
        for name, dtype in PRECISIONS.items()
        if dtype in gemm_rates
    )
    print(
        f"{device_name(device)}, torch {torch.__version__}, {what}, "
        f"T {len(utterance.features)}, S {len(utterance.logits)}, V {utterance.logits.shape[1]}, "
        f"N {ours[0].n_masks}{n_masks and f' (baseline {n_masks})'}, "
        f"batch {batches}{batch and f' (baseline {batch})'}, "
        f"median of {args.rounds} rounds; matrix products, TFLOP/s: {measured}\n"
    )
    print(
        "| target | system | masks/s | ratio | share of the floor | peak memory | first call |\n"
        "| --- | --- | --- | --- | --- | --- | --- |"
    )
    for system in systems:
        rate = statistics.median(system.rates)
        floor = gemm_rates[system.dtype] / flops_per_mask(model, utterance, system.target)
        memory = f"{system.peak / 2**30:.2f} GiB" if device.type == "cuda" else "-"
        print(
            f"| {system.target} | {system.name} | {rate:,.{0 if rate > 100 else 1}f} "
            f"| {ratio(system, baselines.get(system.target))} "
            f"| {100 * rate / floor:.0f} % of {floor:,.0f} | {memory} | {system.warm_up:.1f} s |"
        )


def ratio(system: System, baseline: System | None) -> str:
    """Return how many times as fast as the baseline a system is, with the range of the rounds."""
    if baseline is None:
        return "-"
    ratios = [a / b for a, b in zip(system.rates, baseline.rates, strict=True)]
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


if __name__ == "__main__":
    main()
