"""Tiles of the Triton kernels, compared in the mask loop of a GPU.

    python -m scripts.tune_kernels [--precision fp16] [--kernels swish attention] [--num-masks 8192]

Alone a kernel says little: among the others, on a GPU at its limit of power, other tiles are the
fastest. So each tile runs in the loop for the input of one utterance, in turns with all others of
its kernel, and the table has the median of the ratios to the tile that is set in the code (the
first row), of the same round. The fastest stays set for the kernels that follow. What to write into
the code comes last.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from fbk_xattn.explain.batching import perturbations_per_eval
from fbk_xattn.models.inference import inference_copy
from fbk_xattn.tasks.options import PRECISIONS
from scripts.benchmark_explain import made_up_utterance
from scripts.explanation_models import (
    add_model_args,
    default_explainers,
    device_name,
    device_of,
    random_model,
    segmented,
    synchronise,
)

Tile = dict[str, int]

# Kernel to the names of what a tile has, and the tiles to try beside the one that is set.
PRODUCT = ("ROWS", "COLUMNS", "DEPTH", "FLATTEN", "num_stages", "num_warps")
CANDIDATES: dict[str, tuple[tuple[str, ...], list[tuple[int, ...]]]] = {
    "swish": (
        PRODUCT,
        [
            (128, 128, 64, 0, 3, 4), (128, 128, 64, 1, 3, 4), (128, 128, 64, 1, 3, 8),
            (128, 128, 32, 1, 5, 4), (128, 256, 64, 1, 3, 8), (256, 128, 64, 1, 3, 8),
        ],
    ),
    "gated": (
        PRODUCT,
        [
            (128, 64, 64, 0, 2, 4), (128, 64, 64, 0, 3, 4), (128, 64, 64, 1, 3, 4),
            (128, 64, 64, 0, 3, 8), (128, 128, 64, 0, 3, 8), (128, 128, 64, 1, 3, 8),
        ],
    ),
    "attention": (
        ("ROWS", "COLUMNS", "num_stages", "num_warps", "maxnreg"),
        [
            (32, 32, 2, 4, 168), (64, 32, 2, 4, 168), (64, 32, 3, 4, 128), (64, 32, 3, 4, 168),
            (64, 32, 4, 4, 168), (64, 64, 2, 4, 128), (64, 64, 2, 4, 168), (128, 32, 2, 8, 128),
            (128, 64, 2, 8, 128),
        ],
    ),
    "depthwise": (
        ("QUARTER", "CHANNELS", "num_warps"),
        [
            (2, 128, 2), (4, 64, 1), (4, 128, 1), (4, 128, 2), (4, 256, 4), (8, 64, 1), (8, 64, 2),
            (8, 128, 2),
        ],
    ),
}  # fmt: skip


@dataclass
class Trial:
    """A tile and its masks a second, one of each round; none where it does not fit the GPU."""

    tile: Tile
    rates: list[float] = field(default_factory=list)


def main() -> None:
    """Measure and print."""
    args = parse_args()
    logging.disable(logging.INFO)
    device = device_of(args)
    if device.type != "cuda":
        raise SystemExit("scripts.tune_kernels: no CUDA device, expected one")
    from triton.runtime.errors import TritonError

    model = random_model(args)
    utterance = made_up_utterance(model, args)
    explainer = segmented(default_explainers(["input"])["input"], utterance)
    copy = inference_copy(model, PRECISIONS[args.precision])
    batch = perturbations_per_eval(utterance, "input")

    def rate() -> float:
        synchronise(device)
        start = time.perf_counter()
        explainer.explain(copy, utterance, args.num_masks, args.seed, batch)
        synchronise(device)
        return args.num_masks / (time.perf_counter() - start)

    print(
        f"{device_name(device)}, torch {torch.__version__}, {args.preset}, {args.precision}, "
        f"T {args.frames}, N {args.num_masks}, batch {batch}, median of {args.rounds} rounds\n\n"
        "| kernel | tile | masks/s | ratio to the tile in the code |\n| --- | --- | --- | --- |"
    )
    chosen = {}
    for name, tile in tiles(args.precision).items():
        if name in args.kernels:
            trials = compare(tile, candidates(name, tile), rate, args.rounds, TritonError)
            print("\n".join(row(name, trial, trials[0]) for trial in trials), flush=True)
            chosen[name] = dict(tile)
    print("\nFastest:", "; ".join(f"{name} {tile}" for name, tile in chosen.items()))


def parse_args() -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add_model_args(parser)
    add("--precision", choices=PRECISIONS, default="fp16")
    add("--frames", type=int, default=1000)
    add("--tokens", type=int, default=30, help="tokens, language tag and eos included")
    add("--num-masks", type=int, default=8192, help="of one measurement")
    add("--rounds", type=int, default=3)
    add("--kernels", nargs="+", choices=CANDIDATES, default=list(CANDIDATES))
    args = parser.parse_args()
    args.features = []
    return args


def tiles(precision: str) -> dict[str, Tile]:
    """Return the tiles that are set; what is written there, the kernels use from then on."""
    from fbk_xattn.models.cuda import attention, depthwise, products

    return {
        "swish": products.SWISH_TILE,
        "gated": products.GATED_TILE,
        "attention": attention.PRECISE_TILE if precision == "fp32" else attention.RELATIVE_TILE,
        "depthwise": depthwise.TILE,
    }


def candidates(kernel: str, tile: Tile) -> list[Tile]:
    """Return the tiles to compare, the one that is set first."""
    names, sizes = CANDIDATES[kernel]
    tried = [dict(zip(names, values, strict=True)) for values in sizes]
    return [dict(tile), *(candidate for candidate in tried if candidate != tile)]


def compare(
    tile: Tile,
    variants: list[Tile],
    rate: Callable[[], float],
    rounds: int,
    does_not_fit: type[Exception],
) -> list[Trial]:
    """Measure the variants in turns, and leave the fastest set.

    Args:
        tile: That the kernel reads; changed in place.
        variants: What to set it to, first what it is.
        rate: Returns masks a second with what is set.
        rounds: So many measurements of each, after one that is not counted.
        does_not_fit: Raised by ``rate`` for a tile that the GPU has no room for.
    """
    trials = [Trial(variant) for variant in variants]
    fitting = []
    for trial in trials:
        tile.update(trial.tile)
        try:
            rate()
        except does_not_fit:
            continue
        fitting.append(trial)
    for _ in range(rounds):
        for trial in fitting:
            tile.update(trial.tile)
            trial.rates.append(rate())
    tile.update(max(fitting, key=lambda trial: ratio(trial, trials[0])).tile)
    return trials


def ratio(trial: Trial, first: Trial) -> float:
    """Return the median over the rounds of the ratios of two rates."""
    return statistics.median(a / b for a, b in zip(trial.rates, first.rates, strict=True))


def row(kernel: str, trial: Trial, first: Trial) -> str:
    """Return a row of the table."""
    tile = ", ".join(f"{name} {size}" for name, size in trial.tile.items())
    if not trial.rates:
        return f"| {kernel} | {tile} | does not fit | - |"
    masks = statistics.median(trial.rates)
    return f"| {kernel} | {tile} | {masks:,.0f} | {ratio(trial, first):.3f} |"


if __name__ == "__main__":
    main()
