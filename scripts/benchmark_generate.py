"""Speed of explanations from end to end: ``fairseq-generate`` from its start to its end.

    python -m scripts.benchmark_generate [--processes 1 2] [--num-masks 20000] [--preset base]

Makes a data folder of utterances of 2 to 25 seconds and a checkpoint with random weights, starts
``fairseq-generate --explain input encoder`` as a user would (and with ``--processes 2`` through
torchrun, one GPU each), and measures the wall time: loading, compilation into an empty cache, beam
search, segmentation, masks, files. Then it measures the mask loop alone on the same hypotheses, in
whole batches, and prints which share of the wall time it accounts for, and how long a test set of
three hours would take. Unknown flags go to ``fairseq-generate``.
"""

from __future__ import annotations

import argparse
import logging
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from fairseq import tasks
from fairseq.trainer import Trainer

from fbk_xattn.data.manifest import ManifestRow, write_manifest
from fbk_xattn.explain.batching import perturbations_per_eval
from fbk_xattn.explain.segmentation import FRAMES_PER_SECOND
from fbk_xattn.models.inference import inference_copy
from fbk_xattn.store import AttributionStore
from fbk_xattn.tasks.options import DEFAULT_PRECISION, PRECISIONS
from scripts.benchmark_training import ROOT
from scripts.explanation_models import (
    EOS,
    MODELS,
    add_model_args,
    default_explainers,
    device_name,
    device_of,
    load_model,
    made_up_features,
    segmented,
    synchronise,
    training_config,
    utterance_of,
)

TARGETS = ["input", "encoder"]
TOKENS_PER_FRAME = 0.03
# The English test set of EuroParl-ST, with the paper's number of masks.
TEST_SET_SEGMENTS, TEST_SET_SECONDS, TEST_SET_MASKS = 1130, 3 * 3600, 20_000


@dataclass(frozen=True)
class Run:
    """What ``fairseq-generate`` took.

    Attributes:
        seconds: From its start to its end.
        steady: Of these, from the first utterance that was stored to the last.
        first: Id of that first utterance.
    """

    seconds: float
    steady: float
    first: str


@dataclass(frozen=True)
class Loop:
    """What the mask loop alone takes for one utterance.

    Attributes:
        n_frames: Of the utterance.
        n_tokens: Of its hypothesis.
        seconds: Target to seconds a mask.
    """

    n_frames: int
    n_tokens: int
    seconds: dict[str, float]


def main() -> None:
    """Measure and print."""
    args, flags = parse_args()
    logging.disable(logging.INFO)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        checkpoint = write_checkpoint(folder, args)
        write_utterances(folder, args)
        runs = {}
        for n in args.processes:
            runs[n] = generate(folder, checkpoint, n, args, flags)
            before = runs[n].seconds - runs[n].steady
            print(
                f"{n} processes: {runs[n].seconds:.1f} s, the first utterance stored after "
                f"{before:.1f} s; now the loops alone",
                file=sys.stderr,
                flush=True,
            )
        loops = measure_loops(folder / f"store-{args.processes[0]}", checkpoint, args)
    print_tables(runs, loops, args)


def parse_args() -> tuple[argparse.Namespace, list[str]]:
    """Return the options, and those for ``fairseq-generate``."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add_model_args(parser)
    add("--utterances", type=int, default=40)
    add("--seconds", type=float, nargs=2, default=(2.0, 25.0), help="shortest and longest")
    add("--num-masks", type=int, default=20_000, help="of each utterance and target")
    add("--loop-masks", type=int, default=4000, help="about as many in the loop alone")
    add("--loop-precision", choices=PRECISIONS, help="default: the run's own choice")
    add("--processes", type=int, nargs="+", default=[1], help="runs with so many, one GPU each")
    return parser.parse_known_args()


def write_checkpoint(folder: Path, args: argparse.Namespace) -> Path:
    """Write vocabulary, data config and a checkpoint with random weights, as training does."""
    config = training_config(folder, args.preset, args.vocabulary_size, args.seed)
    torch.manual_seed(args.seed)
    task = tasks.setup_task(config.task)
    model = task.build_model(config.model)
    with torch.no_grad():
        # Never among the best, so hypotheses end where --max-len-a says.
        model.decoder.output_projection.weight[EOS] = 0.0
    trainer = Trainer(config, task, model, task.build_criterion(config.criterion))
    trainer.consolidate_optimizer()
    path = folder / "checkpoint.pt"
    trainer.save_checkpoint(str(path), {"train_iterator": {"epoch": 1}})
    return path


def write_utterances(folder: Path, args: argparse.Namespace) -> None:
    """Write features of utterances of all lengths alike, and their manifest."""
    rng = np.random.default_rng(args.seed)
    n_words = (args.vocabulary_size or MODELS[args.preset][1]) - 1
    shortest, longest = args.seconds
    lengths = FRAMES_PER_SECOND * np.linspace(shortest, longest, args.utterances)
    rows = []
    for number, n_frames in enumerate(rng.permutation(lengths.astype(int)).tolist()):
        file = folder / f"{number}.npy"
        np.save(file, made_up_features(rng, n_frames))
        words = rng.integers(0, n_words, max(1, round(TOKENS_PER_FRAME * n_frames)))
        text = " ".join(f"w{word}" for word in words)
        rows.append(
            ManifestRow(f"utterance-{number}", str(file), n_frames, "", "en", text, "en", text)
        )
    write_manifest(folder / "test.tsv", rows)


def generate(
    folder: Path, checkpoint: Path, n_processes: int, args: argparse.Namespace, flags: list[str]
) -> Run:
    """Decode and explain all utterances with ``fairseq-generate``."""
    launcher = [sys.executable]
    if n_processes > 1:
        launcher += ["-m", "torch.distributed.run", "--standalone"]
        launcher += ["--nproc_per_node", str(n_processes)]
    command = [
        *launcher, "-m", "fairseq_cli.generate", str(folder),
        "--user-dir", str(ROOT / "fbk_xattn"), "--task", "speech_to_text_ctc",
        "--gen-subset", "test", "--path", str(checkpoint), "--beam", "5",
        "--no-repeat-ngram-size", "5", "--prefix-size", "1", "--max-tokens", "40000",
        "--max-len-a", str(TOKENS_PER_FRAME), "--max-len-b", "2", "--scoring", "sacrebleu",
        "--attribution-dir", str(folder / f"store-{n_processes}"), "--save-cross-attention",
        "--explain", *TARGETS, "--num-masks", str(args.num_masks), "--seed", str(args.seed),
        *(["--cpu"] if args.cpu else []), *flags,
    ]  # fmt: skip
    # A user's first run finds nothing compiled.
    caches = {
        variable: str(folder / f"{variable.lower()}-{n_processes}")
        for variable in ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR")
    }
    log = folder / f"log-{n_processes}"
    with log.open("w", encoding="utf-8") as file:
        start = time.perf_counter()
        done = subprocess.run(  # noqa: S603 - our own command
            command, stdout=file, stderr=subprocess.STDOUT, env={**os.environ, **caches}, cwd=ROOT
        )
        seconds = time.perf_counter() - start
    if done.returncode:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        raise SystemExit("\n".join([*lines[-100:], f"fairseq-generate: {done.returncode}"]))
    with AttributionStore.open(folder / f"store-{n_processes}") as store:
        stored = {name: store.file(name).stat().st_mtime for name in store.ids()}
    first = min(stored, key=lambda name: stored[name])
    return Run(seconds, max(stored.values()) - stored[first], first)


def measure_loops(store: Path, checkpoint: Path, args: argparse.Namespace) -> dict[str, Loop]:
    """Time the mask loop of each utterance of a store, without anything around it."""
    device = device_of(args)
    model = load_model(str(checkpoint), None, device)
    precision = args.loop_precision or DEFAULT_PRECISION[device.type]
    copy = inference_copy(model, PRECISIONS[precision])
    loops = {}
    with AttributionStore.open(store) as opened:
        for attribution in opened:
            utterance = utterance_of(
                model, attribution.id, attribution.fbank, attribution.token_ids
            )
            seconds = {}
            for target, explainer in default_explainers(TARGETS).items():
                known = segmented(explainer, utterance)
                batch = perturbations_per_eval(utterance, target)
                # Whole batches only, at one level after the other; the run has but a few others.
                whole = batch * len(known.segmenter(utterance))
                n_masks = min(whole * max(1, round(args.loop_masks / whole)), args.num_masks)
                for n in (min(whole, n_masks), n_masks):  # the first to warm up
                    synchronise(device)
                    start = time.perf_counter()
                    known.explain(copy, utterance, n, args.seed, batch)
                    synchronise(device)
                    seconds[target] = (time.perf_counter() - start) / n
            loops[attribution.id] = Loop(len(attribution.fbank), len(attribution.tokens), seconds)
    return loops


def print_tables(runs: dict[int, Run], loops: dict[str, Loop], args: argparse.Namespace) -> None:
    """Print what was measured, and what it means for a whole test set."""
    device = device_of(args)
    n_frames = sum(loop.n_frames for loop in loops.values())
    n_tokens = sum(loop.n_tokens for loop in loops.values())
    # Seconds of all utterances for one mask each.
    one_mask = {t: sum(loop.seconds[t] for loop in loops.values()) for t in TARGETS}
    alone = args.num_masks * sum(one_mask.values())
    n_masks = args.num_masks * len(loops) * len(TARGETS)
    rates = ", ".join(f"{target} {len(loops) / one_mask[target]:,.0f}" for target in TARGETS)
    print(
        f"{device_name(device)}, torch {torch.__version__}, {args.preset}, {len(loops)} utterances "
        f"of {args.seconds[0]:g} to {args.seconds[1]:g} s, {n_frames / FRAMES_PER_SECOND:.0f} s of "
        f"speech, {n_tokens} tokens, N {args.num_masks} for each of {' and '.join(TARGETS)}: "
        f"{n_masks} masks; mask loop alone, masks/s: {rates}\n"
    )
    print(
        "| processes | wall time | ratio | masks/s end to end | masks/s of the loop alone | share "
        "| first utterance stored | share from then on | test set of 3 h |\n"
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |"
    )
    baseline = next(iter(runs.values())).seconds
    scale = TEST_SET_SECONDS * FRAMES_PER_SECOND / n_frames
    test_set = TEST_SET_MASKS * scale * sum(one_mask.values())
    for n_processes, run in runs.items():
        first = args.num_masks * sum(loops[run.first].seconds.values())
        # With several processes as if there were nothing before the first utterance of any.
        share = (alone - first) / n_processes / max(run.steady, 1e-9)
        estimate = run.seconds - run.steady - first + test_set / n_processes / share
        print(
            f"| {n_processes} | {run.seconds:,.1f} s | {baseline / run.seconds:.2f} "
            f"| {n_masks / run.seconds:,.0f} | {n_masks * n_processes / alone:,.0f} "
            f"| {100 * alone / n_processes / run.seconds:.0f} % "
            f"| {run.seconds - run.steady:.1f} s | {100 * share:.0f} % | {estimate / 3600:.2f} h |"
        )
    print(
        f"\nThe last column is an estimate for {TEST_SET_SEGMENTS} segments with 3 h of speech, "
        f"both targets, N {TEST_SET_MASKS}: the loop's time for one mask of each of these "
        f"utterances, scaled by frames (x {scale:.1f}; as many tokens to a frame as here, "
        f"{FRAMES_PER_SECOND * n_tokens / n_frames:.1f} a second), times N, divided by the share "
        "from the first utterance on; and the time before that once."
    )


if __name__ == "__main__":
    main()
