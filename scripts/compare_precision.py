"""Loss curves of one training in single and in half precision, on the same batches.

    python -m scripts.compare_precision DATA [--updates 120] [flags of fairseq-train]

Trains the base model from the same weights on the same batches of ``DATA`` in fp32, in bf16, in
fp16 (on a GPU), and in fp32 again with other dropout, twice, which shows how far apart runs are
that differ in chance alone. Prints the mean loss of each stretch of updates, in bits a token, and
how far the curves are from that of fp32: on average over the stretches, and at the end; and how
many updates were skipped because a gradient overflowed, which fp16 does until its loss scale fits.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import tempfile

import torch
from fairseq import options, tasks
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq.trainer import Trainer

from scripts.benchmark_training import ROOT, THREE_LOSSES

RUNS = {
    "fp32": ([], 0),
    "fp32, other dropout": ([], 1_000_000),
    "fp32, third dropout": ([], 2_000_000),
    "bf16": (["--bf16"], 0),
}
if torch.cuda.is_available():  # fairseq's --fp16 has no CPU
    RUNS["fp16"] = (["--fp16"], 0)
STRETCHES = 10


def main() -> None:
    """Train and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", metavar="DATA", help="folder made by fbk-xattn prepare")
    parser.add_argument("--updates", type=int, default=120)
    args, flags = parser.parse_known_args()
    if args.updates < STRETCHES:
        parser.error(f"--updates {args.updates}: expected at least {STRETCHES}, one a stretch")
    logging.disable(logging.WARNING)
    curves = {name: train(args, [*more, *flags], seed) for name, (more, seed) in RUNS.items()}
    print_table(curves)


def train(args: argparse.Namespace, flags: list[str], dropout_seed: int) -> list[float]:
    """Return the loss of each update."""
    with tempfile.TemporaryDirectory() as folder:
        argv = [
            args.data, "--user-dir", str(ROOT / "fbk_xattn"), "--task", "speech_to_text_ctc",
            "--arch", "conformer_joint_ctc_base", *THREE_LOSSES.split(),
            "--train-subset", "train", "--max-tokens", "10000", "--max-source-positions", "3000",
            "--optimizer", "adamw", "--adam-betas", "(0.9, 0.98)", "--weight-decay", "0.001",
            "--clip-norm", "10", "--lr", "5e-4", "--lr-scheduler", "inverse_sqrt",
            "--warmup-updates", "50", "--max-update", str(args.updates), "--num-workers", "4",
            "--save-dir", folder, *([] if torch.cuda.is_available() else ["--cpu"]), *flags,
        ]  # fmt: skip
        parsed = options.parse_args_and_arch(options.get_training_parser(), argv)
        config = convert_namespace_to_omegaconf(parsed)
        torch.manual_seed(config.common.seed)
        task = tasks.setup_task(config.task)
        model = task.build_model(config.model)
        trainer = Trainer(config, task, model, task.build_criterion(config.criterion))
        task.load_dataset(config.dataset.train_subset)
        epochs = trainer.get_train_iterator(epoch=1)
        # The batches are drawn with the seed by now; the trainer's own use of it is dropout.
        config.common.seed += dropout_seed
        losses: list[float] = []
        while len(losses) < args.updates:
            for batch in epochs.next_epoch_itr(shuffle=True):
                logged = trainer.train_step([batch])
                # An update that overflows in fp16 is skipped, and its loss not logged.
                losses.append(logged["loss"] if logged else float("nan"))
        return losses[: args.updates]


def print_table(curves: dict[str, list[float]]) -> None:
    """Print the curves in stretches, and their distances from that of fp32."""
    n_updates = len(curves["fp32"])
    size = n_updates // STRETCHES
    bounds = [(i * size, (i + 1) * size) for i in range(STRETCHES)]
    means = {
        name: [statistics.mean(x for x in curve[a:b] if x == x) for a, b in bounds]
        for name, curve in curves.items()
    }
    print("| updates | " + " | ".join(means) + " |")
    print("| --- " * (1 + len(means)) + "|")
    for row, (a, b) in enumerate(bounds):
        cells = " | ".join(f"{curve[row]:.3f}" for curve in means.values())
        print(f"| {a + 1} to {b} | {cells} |")
    distances = {
        name: [abs(x / y - 1) for x, y in zip(curve, means["fp32"], strict=True)]
        for name, curve in means.items()
    }
    cells = " | ".join(f"{100 * statistics.mean(values):.2f} %" for values in distances.values())
    print(f"| mean distance from fp32 | {cells} |")
    cells = " | ".join(f"{100 * values[-1]:.2f} %" for values in distances.values())
    print(f"| distance at the end | {cells} |")
    skipped = " | ".join(str(sum(x != x for x in curve)) for curve in curves.values())
    print(f"| skipped updates | {skipped} |")


if __name__ == "__main__":
    main()
