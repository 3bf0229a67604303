"""Training speed and memory against fairseq's own Conformer, of the same size on the same batches.

    python -m scripts.benchmark_training [--dtype bf16] [--max-tokens 160000] [--update-freq 4]

Made-up utterances of 2 to 20 seconds, sorted and padded into batches as fairseq does it; whole
updates of fairseq's trainer: forward, losses, backward, clipping, Adam. The systems take turns, so
what slows the machine for a while slows all. Prints a Markdown table: medians over the rounds, and
the median of the ratios to fairseq's Conformer in the same round: with the cross-entropy that
fairseq trains it with and with all three losses, with fairseq's Adam and with ``adamw``.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fairseq import options, tasks
from fairseq.data import Dictionary
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq.logging import metrics
from fairseq.trainer import Trainer

import fbk_xattn.plugin  # noqa: F401

ROOT = Path(__file__).parents[1]
CROSS_ENTROPY = (
    "--criterion label_smoothed_cross_entropy --label-smoothing 0.1 --ignore-prefix-size 1"
)
THREE_LOSSES = (
    "--criterion ctc_multi_loss --underlying-criterion joint_cross_entropy_ctc "
    "--label-smoothing 0.1 --ignore-prefix-size 1"
)
FAIRSEQ = "fairseq s2t_conformer, cross-entropy"
SYSTEMS = {
    FAIRSEQ: (
        "--arch s2t_conformer --attn-type espnet --pos-enc-type rel_pos "
        f"--depthwise-conv-kernel-size 31 {CROSS_ENTROPY}"
    ),
    "conformer, cross-entropy": f"--arch conformer {CROSS_ENTROPY}",
    "conformer, cross-entropy, adamw": f"--arch conformer --optimizer adamw {CROSS_ENTROPY}",
    "conformer_joint_ctc, three losses": f"--arch conformer_joint_ctc {THREE_LOSSES}",
    "conformer_joint_ctc, three losses, adamw": (
        f"--arch conformer_joint_ctc --optimizer adamw {THREE_LOSSES}"
    ),
}


@dataclass
class System:
    """A model with what trains it, and what was measured.

    Attributes:
        trainer: fairseq's.
        resident: Bytes of weights, gradients and optimizer state on the device.
        seconds: Of each round.
        peak: Most bytes on the device at any time, of this system alone.
    """

    trainer: Trainer
    resident: int = 0
    seconds: list[float] = field(default_factory=list)
    peak: float = 0.0


def main() -> None:
    """Measure and print the table."""
    args = parse_args()
    logging.disable(logging.INFO)
    rng = np.random.default_rng(args.seed)
    with tempfile.TemporaryDirectory() as folder:
        write_data_folder(Path(folder), args.vocabulary_size)
        systems = {}
        batches: list[dict[str, Any]] = []
        for name, flags in SYSTEMS.items():
            before = allocated()
            systems[name] = System(build_trainer(folder, flags, args))
            batches = batches or make_batches(rng, args, systems[name].trainer.task)
            for _ in range(2):  # the optimizer's state, and what is compiled or chosen at first use
                train(systems[name], batches, args.update_freq)
            systems[name].resident = allocated() - before
        for _ in range(args.rounds):
            for system in systems.values():
                measure(system, batches, args.update_freq)
    print_table(systems, batches, args)


def parse_args() -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--dtype", choices=("bf16", "fp16", "fp32"), default="bf16")
    add("--max-tokens", type=int, default=160_000, help="frames of a batch, padding included")
    add("--batches", type=int, default=8, help="batches of a round")
    add("--update-freq", type=int, default=4, help="batches of an update, as in the recipes")
    add("--rounds", type=int, default=5, help="rounds, of which medians are printed")
    add("--dim", type=int, default=512, help="model dimension; feed-forward is four times that")
    add("--heads", type=int, default=8)
    add("--encoder-layers", type=int, default=12)
    add("--decoder-layers", type=int, default=6)
    add("--vocabulary-size", type=int, default=8000)
    add("--seed", type=int, default=1)
    return parser.parse_args()


def write_data_folder(folder: Path, vocabulary_size: int) -> None:
    """Write the data config and vocabulary that the task reads."""
    (folder / "config.yaml").write_text(
        "vocab_filename: vocab.txt\nprepend_tgt_lang_tag: true\n", encoding="utf-8"
    )
    dictionary = Dictionary()
    for symbol in ("<lang:en>", *(f"w{number}" for number in range(vocabulary_size - 1))):
        dictionary.add_symbol(symbol)
    dictionary.save(str(folder / "vocab.txt"))


def build_trainer(folder: str, flags: str, args: argparse.Namespace) -> Trainer:
    """Build a system as ``fairseq-train`` does, from its flags."""
    argv = [
        folder, "--user-dir", str(ROOT / "fbk_xattn"), "--task", "speech_to_text_ctc",
        "--optimizer", "adam", *flags.split(),
        "--encoder-layers", args.encoder_layers, "--decoder-layers", args.decoder_layers,
        "--encoder-embed-dim", args.dim, "--encoder-ffn-embed-dim", 4 * args.dim,
        "--encoder-attention-heads", args.heads, "--decoder-attention-heads", args.heads,
        "--dropout", 0.1, "--attention-dropout", 0.1, "--activation-dropout", 0.1,
        "--adam-betas", "(0.9, 0.98)", "--weight-decay", 0.001,
        "--clip-norm", 10, "--lr", 1e-4, "--lr-scheduler", "fixed", "--seed", args.seed,
        "--max-update", 1_000_000, "--save-dir", folder,
    ]  # fmt: skip
    if "ctc_multi_loss" in flags:
        argv += ["--ctc-encoder-layer", max(1, args.encoder_layers * 2 // 3)]
    if args.dtype != "fp32":
        argv.append(f"--{args.dtype}")
    if not torch.cuda.is_available():
        argv.append("--cpu")
    parsed = options.parse_args_and_arch(options.get_training_parser(), [str(a) for a in argv])
    config = convert_namespace_to_omegaconf(parsed)
    config.common.tpu = False  # fairseq takes --bf16 for a TPU's, where a model does not undo it
    torch.manual_seed(args.seed)
    task = tasks.setup_task(config.task)
    model = task.build_model(config.model)
    trainer = Trainer(config, task, model, task.build_criterion(config.criterion))
    trainer.lr_step_begin_epoch(1)
    return trainer


def make_batches(rng: np.random.Generator, args: argparse.Namespace, task: Any) -> list[Any]:
    """Make padded batches of utterances that are alike in length."""
    pad, eos = task.target_dictionary.pad(), task.target_dictionary.eos()
    lengths = np.sort(rng.integers(200, 2001, size=args.batches * args.max_tokens // 1000))
    batches: list[Any] = []
    current: list[int] = []
    for n_frames in lengths:
        if (len(current) + 1) * n_frames > args.max_tokens:
            batches.append(make_batch(rng, current, args.vocabulary_size, pad, eos))
            current = []
        current.append(n_frames)
    batches.append(make_batch(rng, current, args.vocabulary_size, pad, eos))
    order = rng.permutation(len(batches))[: args.batches]
    return [batches[i] for i in order]


def make_batch(
    rng: np.random.Generator, n_frames: list[int], n_symbols: int, pad: int, eos: int
) -> dict[str, Any]:
    """Make one batch, as the dataset would: three tokens a second, the language tag first."""
    n_frames = n_frames[::-1]
    features = np.zeros((len(n_frames), n_frames[0], 80), dtype=np.float32)
    n_tokens = [2 + n * 3 // 100 for n in n_frames]
    target = np.full((len(n_frames), n_tokens[0]), pad)
    for row, (frames, tokens) in enumerate(zip(n_frames, n_tokens, strict=True)):
        features[row, :frames] = rng.standard_normal((frames, 80))
        target[row, :tokens] = [4, *rng.integers(5, n_symbols, tokens - 2), eos]
    previous = np.where(target == eos, pad, target)
    previous = np.concatenate([np.full((len(target), 1), eos), previous[:, :-1]], axis=1)
    lengths = torch.tensor(n_tokens)
    transcript = torch.from_numpy(target[:, 1:].copy())
    return {
        "id": torch.arange(len(n_frames)),
        "nsentences": len(n_frames),
        "ntokens": sum(n_tokens),
        "net_input": {
            "src_tokens": torch.from_numpy(features),
            "src_lengths": torch.tensor(n_frames),
            "prev_output_tokens": torch.from_numpy(previous),
        },
        "target": torch.from_numpy(target),
        "target_lengths": lengths,
        "transcript": {
            "target": transcript,
            "target_lengths": lengths - 1,
            "ntokens": sum(n_tokens) - len(n_tokens),
        },
    }


def allocated() -> int:
    """Return the bytes in use on the device."""
    return torch.cuda.memory_allocated() if torch.cuda.is_available() else 0


def synchronise() -> None:
    """Wait for the device."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def train(system: System, batches: list[Any], update_freq: int) -> float:
    """Make one update with each few batches; return the peak of the device's memory, in bytes."""
    free = []
    for first in range(0, len(batches), update_freq):
        # The trainer logs what was left at the peak of an update, and sets the counter back.
        with metrics.aggregate(new_root=True) as logged:
            system.trainer.train_step(batches[first : first + update_freq])
        if "gb_free" in logged:
            free.append(logged["gb_free"].val)
    system.trainer.zero_grad()
    synchronise()
    total = system.trainer.cuda_env.total_memory_in_GB if free else 0.0
    return (total - min(free, default=0.0)) * 2**30


def measure(system: System, batches: list[Any], update_freq: int) -> None:
    """Time one round, and keep its peak of memory."""
    before = allocated()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    peak = train(system, batches, update_freq)
    system.seconds.append(time.perf_counter() - start)
    system.peak = max(system.peak, peak - before + system.resident)


def print_table(systems: dict[str, System], batches: list[Any], args: argparse.Namespace) -> None:
    """Print what was measured."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    n_tokens = sum(batch["ntokens"] for batch in batches)
    n_frames = sum(int(batch["net_input"]["src_lengths"].sum()) for batch in batches)
    baseline = systems[FAIRSEQ]
    print(
        f"{device}, torch {torch.__version__}, {args.dtype}, batches of {args.max_tokens} frames "
        f"({len(batches)}, {n_frames} frames and {n_tokens} target tokens in all), "
        f"{args.update_freq} an update, "
        f"median of {args.rounds} rounds\n"
    )
    print("| system | parameters | tokens/s | ratio | frames/s | peak memory | ratio |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name, system in systems.items():
        ratios = [a / b for a, b in zip(baseline.seconds, system.seconds, strict=True)]
        seconds = statistics.median(system.seconds)
        n_parameters = sum(p.numel() for p in system.trainer.model.parameters())
        memory = system.peak / max(1, baseline.peak)
        print(
            f"| {name} | {n_parameters / 1e6:.1f}M | {n_tokens / seconds:.0f} "
            f"| {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) "
            f"| {n_frames / seconds:.0f} | {system.peak / 2**30:.2f} GiB | {memory:.2f} |"
        )


if __name__ == "__main__":
    main()
