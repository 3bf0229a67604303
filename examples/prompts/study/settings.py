"""The stores of the study by name; ``explain.sh`` makes them."""

from __future__ import annotations

from pathlib import Path

from fbk_xattn.errors import InputError

MAIN = "main"
PROBABILITIES = {f"p{tenth}": tenth / 10 for tenth in (1, 3, 5, 7, 9)}
NUM_MASKS = (2000, 5000, 10_000, 20_000)
# Two seeds of each number of masks.
SEEDS = tuple((f"n{n}-1", f"n{n}-2") for n in NUM_MASKS)
REFERENCE, HALF = "fp32", ("fp16", "bf16")
EXPLAINED = (MAIN, *PROBABILITIES, *(name for pair in SEEDS for name in pair), REFERENCE, *HALF)
PAIRS = (*SEEDS, *((REFERENCE, name) for name in HALF))
# What is compared of each pair: target and aggregation, None for the maps as they are.
COMPARED = (("input", None), ("input", "2d-max"), ("encoder", None))

DELETED = {
    "delete-input": "input map, cells",
    "delete-random": "random map, cells",
    "delete-2d-max": "input map, 2d-max, frames",
    "delete-2d-avg": "input map, 2d-avg, frames",
    "delete-cross-attention": "cross-attention, frames",
    "delete-random-frames": "random map, frames",
    "delete-encoder": "encoder-output map, encoder steps",
    "delete-random-encoder": "random map, encoder steps",
}
INSERTED = {"insert-input": "input map, cells, insertion"}
TARGETS = ("input", "encoder")
DELETED_PROBABILITIES = tuple(
    f"delete-{name}-{target}" for name in PROBABILITIES for target in TARGETS
)
CURVES = (*DELETED, *INSERTED, *DELETED_PROBABILITIES)
SCRIPT = "bash examples/prompts/study/explain.sh --data DATA --model CKPT --work"


def missing(work: Path, *names: str) -> InputError:
    """Return the error that says which command makes what is not there."""
    return InputError(
        f"{work}: nothing of {' and '.join(names)}, expected what this makes: "
        f"{SCRIPT} {work} {' '.join(names)}"
    )
