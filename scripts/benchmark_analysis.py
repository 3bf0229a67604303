"""Time and memory of the whole layer-by-head table of a large store, and whether time is linear.

Run ``python -m scripts.benchmark_analysis``. It makes a store of random maps in a temporary folder
(at the default size 1,130 utterances of 30 content tokens, 1,000 frames and 250 encoder steps, with
cross-attention of 6 layers of 8 heads and both kinds of saliency), then, each in a process of its
own, correlates the whole store and a quarter of it by ``fbk-xattn correlate`` with 1,000 bootstrap
resamples, and prints the wall time and the peak of the resident memory.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess  # the command is this package's own
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fbk_xattn.store import Attribution, AttributionStore, SegmentLevel, SegmentSaliency

N_LAYERS, N_HEADS, N_MELS, FRAMES_PER_STEP = 6, 8, 80, 4
# Superpixels of an utterance of more than 7.5 s: 400, 500 and 600 for each of these seconds.
SEGMENTS = (3000, 3750, 4500)
N_DIFFERENT = 40  # made anew, as random numbers and zlib take longer than what is measured
LINEAR_WITHIN = 0.25  # time an utterance may differ by, between the quarter and the whole


def make_store(path: Path, n_utterances: int, n_tokens: int, n_frames: int) -> None:
    """Write a store of random maps with the shapes and the sizes on disk of real ones."""
    rng = np.random.default_rng(0)
    tokens = ("<lang:en>", *(f"▁w{n}" for n in range(n_tokens)), "</s>")
    with AttributionStore.create(path, parameters={"--num-masks": 20_000}) as store:
        made: list[Attribution] = []
        for number in range(n_utterances):
            if number < N_DIFFERENT:
                made.append(_attribution(rng, f"u{number:05d}", tokens, n_frames))
                store.write(made[-1])
                continue
            # The file of another utterance under its own id: bytes are copied, not compressed.
            like = made[number % N_DIFFERENT]
            shutil.copyfile(store.file(like.id), store.file(f"u{number:05d}"))


def _attribution(
    rng: np.random.Generator, utterance_id: str, tokens: tuple[str, ...], n_frames: int
) -> Attribution:
    S, n_steps = len(tokens), -(-n_frames // FRAMES_PER_STEP)
    attention = rng.random((N_LAYERS, N_HEADS, S, n_steps), dtype=np.float32) ** 3
    return Attribution(
        id=utterance_id,
        speaker="s",
        src_lang="en",
        tgt_lang="en",
        src_text="",
        tgt_text="",
        hypothesis="",
        tokens=tokens,
        token_ids=np.arange(S),
        positional_scores=np.zeros(S, dtype=np.float32),
        score=0.0,
        n_prefix=1,
        frames_per_step=FRAMES_PER_STEP,
        fbank=rng.standard_normal((n_frames, N_MELS), dtype=np.float32),
        cross_attention=attention / attention.sum(-1, keepdims=True),
        encoder_saliency=rng.random((S, n_steps), dtype=np.float32),
        input_saliency=SegmentSaliency(
            tuple(_level(rng, S, n_frames, n_segments) for n_segments in SEGMENTS)
        ),
    )


def _level(rng: np.random.Generator, S: int, n_frames: int, n_segments: int) -> SegmentLevel:
    labels = _superpixels(rng, n_frames, n_segments)
    n = int(labels.max()) + 1
    return SegmentLevel(
        labels=labels,
        numerator=rng.random((S, n), dtype=np.float32) * 1e4,
        denominator=rng.integers(3000, 3700, n, dtype=np.int32),
    )


def _superpixels(
    rng: np.random.Generator, n_frames: int, n_segments: int
) -> NDArray[np.unsignedinteger]:
    """Return squares with frayed borders, which are what SLIC makes of speech."""
    side = (n_frames * N_MELS / n_segments) ** 0.5
    frames, mels = np.indices((n_frames, N_MELS))
    frames = np.clip(frames + rng.integers(-1, 2, frames.shape), 0, n_frames - 1)
    mels = np.clip(mels + rng.integers(-1, 2, mels.shape), 0, N_MELS - 1)
    labels = (frames // side).astype(int) * int(np.ceil(N_MELS / side)) + (mels // side).astype(int)
    return np.unique(labels, return_inverse=True)[1].reshape(labels.shape).astype(np.uint16)


def measure(path: Path) -> tuple[float, float]:
    """Correlate a store in a process of its own.

    Returns:
        Wall time in seconds and peak of the resident memory in MiB.
    """
    command = [sys.executable, "-m", "fbk_xattn.cli.main", "correlate", str(path)]
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)  # noqa: S603
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}: exit code {process.returncode}")
    return seconds, usage.ru_maxrss / 1024


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table; return 1 if time is not linear in the utterances."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--utterances", type=int, default=1130, metavar="N")
    parser.add_argument("--tokens", type=int, default=30, metavar="N", help="content tokens")
    parser.add_argument("--frames", type=int, default=1000, metavar="N")
    parser.add_argument("--folder", metavar="DIR", help="for the stores (default: a temporary one)")
    args = parser.parse_args(argv)
    print("| utterances | wall s | s an utterance | peak MiB |\n| ---: | ---: | ---: | ---: |")
    each = []
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        for n in (max(1, args.utterances // 4), args.utterances):
            store = Path(folder) / str(n)
            make_store(store, n, args.tokens, args.frames)
            seconds, peak = measure(store)
            each.append(seconds / n)
            print(f"| {n} | {seconds:.1f} | {each[-1]:.4f} | {peak:.0f} |", flush=True)
            shutil.rmtree(store)
    ratio = each[1] / each[0]
    print(f"\nTime an utterance, all of them against a quarter: {ratio:.2f}")
    return int(ratio > 1 + LINEAR_WITHIN)


if __name__ == "__main__":
    sys.exit(main())
