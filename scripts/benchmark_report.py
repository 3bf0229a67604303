"""Size, time and memory of the interactive report, and how quickly it answers in a browser.

Run ``python -m scripts.benchmark_report``. It makes a store of made-up utterances in a temporary
folder, with the shapes of the paper's base model (at the default size 50 utterances of 10 s and 30
content tokens; 6 decoder layers of 8 heads), from made-up voices whose features and superpixels are
real ones and with their audio, writes its report by ``fbk-xattn report`` in a process of its own,
opens that in headless Chromium, and prints what was measured beside what is wanted. Maps are noise
with a peak where a token is spoken.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess  # the command is this package's own
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
from numpy.typing import NDArray

from fbk_xattn.data.features import FRAME_LENGTH, FRAME_SHIFT, SAMPLE_RATE, fbank
from fbk_xattn.data.manifest import ManifestRow, write_manifest
from fbk_xattn.explain.segmentation import SlicPyramid
from fbk_xattn.explain.utterance import Utterance
from fbk_xattn.store import Attribution, AttributionStore, SegmentLevel, SegmentSaliency
from scripts.benchmark_analysis import FRAMES_PER_STEP, N_HEADS, N_LAYERS, N_MELS

N_MASKS = 20_000
N_DIFFERENT = 10  # voices, as superpixels take a while
# Logits of made-up cross-attention, whose codes then have about the entropy of a trained model's.
PEAK, NOISE = 4.0, 1.0
MEGABYTE = 1e6
# What the page has to keep to: name, limit and unit.
LIMITS = {
    "size of the file": (25.0, "MB"),
    "time to build": (60.0, "s"),
    "peak memory of building": (1500.0, "MB"),
    "first view interactive after": (2.0, "s"),
    "another token drawn, slowest": (50.0, "ms"),
    "another token drawn, median": (50.0, "ms"),
    "another utterance opened, slowest": (500.0, "ms"),
}


def make_store(folder: Path, n_utterances: int, n_tokens: int, n_frames: int) -> None:
    """Write ``store``, and ``corpus`` with its manifest and audio, into a folder."""
    import soundfile

    rng = np.random.default_rng(0)
    (folder / "corpus").mkdir(parents=True)
    voices = [_voice(rng, n_frames) for _ in range(min(n_utterances, N_DIFFERENT))]
    rows = []
    with AttributionStore.create(folder / "store", parameters={"--num-masks": N_MASKS}) as store:
        for number in range(n_utterances):
            voice = voices[number % len(voices)]
            attribution = _attribution(rng, f"u{number:03d}", n_tokens, voice)
            store.write(attribution)
            audio = f"{attribution.id}.flac"
            soundfile.write(folder / "corpus" / audio, voice.samples, SAMPLE_RATE)
            words = attribution.tgt_text
            rows.append(ManifestRow(attribution.id, audio, n_frames, "s", "en", words, "en", words))
    write_manifest(folder / "corpus" / "test.tsv", rows)


@dataclass(frozen=True)
class Voice:
    """Audio with its features and their segmentations."""

    samples: NDArray[np.float64]
    features: NDArray[np.float32]
    levels: tuple[NDArray[np.unsignedinteger], ...]


def _voice(rng: np.random.Generator, n_frames: int) -> Voice:
    """Make harmonics that glide, in syllables, above a little noise."""
    import torch

    time_ = np.arange((n_frames - 1) * FRAME_SHIFT + FRAME_LENGTH) / SAMPLE_RATE
    glide = np.sin(2 * np.pi * rng.uniform(0.5, 2) * time_ + rng.uniform(0, 6))
    phase = 2 * np.pi * np.cumsum(150 + 60 * glide) / SAMPLE_RATE
    formant = 8 + 6 * np.sin(2 * np.pi * rng.uniform(1, 3) * time_)
    harmonics = (np.sin(k * phase) * np.exp(-((k - formant) ** 2) / 30) for k in range(1, 25))
    syllables = np.clip(np.sin(2 * np.pi * rng.uniform(2, 5) * time_), 0, None)
    samples = 0.1 * syllables * sum(harmonics) + 0.002 * rng.standard_normal(len(time_))
    features = fbank((samples * 2**15).astype(np.float32))
    features = (features - features.mean(axis=0)) / features.std(axis=0)
    utterance = cast(Utterance, SimpleNamespace(features=torch.from_numpy(features)))
    labels = SlicPyramid()(utterance)
    return Voice(samples, features, tuple(level.astype(np.uint16) for level in labels))


def _attribution(
    rng: np.random.Generator, utterance_id: str, n_tokens: int, voice: Voice
) -> Attribution:
    S, n_steps = n_tokens + 2, -(-len(voice.features) // FRAMES_PER_STEP)
    peaks = np.exp(-((np.arange(n_steps) - np.linspace(0, n_steps, S)[:, np.newaxis]) ** 2) / 50)
    logits = PEAK * peaks + NOISE * rng.standard_normal((N_LAYERS, N_HEADS, S, n_steps))
    attention = np.exp(logits)
    words = " ".join(f"word{n}" for n in range(n_tokens // 2))
    tokens = (f"▁word{n // 2}" if n % 2 == 0 else "ing" for n in range(n_tokens))
    return Attribution(
        id=utterance_id,
        speaker="s",
        src_lang="en",
        tgt_lang="en",
        src_text=words,
        tgt_text=words,
        hypothesis=words,
        tokens=("<lang:en>", *tokens, "</s>"),
        token_ids=np.arange(S),
        positional_scores=np.full(S, -0.3, dtype=np.float32),
        score=0.0,
        n_prefix=1,
        frames_per_step=FRAMES_PER_STEP,
        fbank=voice.features,
        cross_attention=(attention / attention.sum(-1, keepdims=True)).astype(np.float32),
        encoder_saliency=(peaks + 0.3 * rng.random((S, n_steps))).astype(np.float32),
        input_saliency=SegmentSaliency(tuple(_level(rng, peaks, level) for level in voice.levels)),
    )


def _level(
    rng: np.random.Generator, peaks: NDArray[np.float64], labels: NDArray[np.unsignedinteger]
) -> SegmentLevel:
    n = int(labels.max()) + 1
    counts = rng.binomial(N_MASKS // 3, 0.5, n)
    frame = np.zeros(n, dtype=int)  # the last one of each segment
    frame[labels.ravel()] = np.repeat(np.arange(len(labels)), N_MELS)
    scores = 0.3 + peaks[:, frame // FRAMES_PER_STEP] + 0.15 * rng.standard_normal((len(peaks), n))
    return SegmentLevel(labels, (scores * counts).astype(np.float32), counts.astype(np.int32))


def build(folder: Path) -> tuple[Path, dict[str, float]]:
    """Write the report of the folder in a process of its own."""
    report = folder / "report.html"
    command = [sys.executable, "-m", "fbk_xattn.cli.main", "report", str(folder / "store")]
    command += ["-o", str(report), "--audio", "--manifest", str(folder / "corpus" / "test.tsv")]
    started = time.perf_counter()
    process = subprocess.Popen(command)  # noqa: S603
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}: exit code {process.returncode}")
    return report, {
        "size of the file": report.stat().st_size / MEGABYTE,
        "time to build": seconds,
        "peak memory of building": usage.ru_maxrss * 1024 / MEGABYTE,
    }


def browse(report: Path, repetitions: int) -> dict[str, float]:
    """Open the report in headless Chromium, each time anew, and point at its tokens."""
    from tests.browser import Browser

    opened, redrawn, turned = [], [], []
    for _ in range(repetitions):
        browser = Browser()
        try:
            started = time.perf_counter()
            browser.open(report)
            opened.append(time.perf_counter() - started)
            redrawn += browser.js(
                """const times = [];
                for (const button of document.querySelectorAll(".token")) {
                  const started = performance.now();
                  button.dispatchEvent(new PointerEvent("pointerover", {bubbles: true}));
                  document.getElementById("cells").getContext("2d").getImageData(0, 0, 1, 1);
                  times.push(performance.now() - started);
                }
                return times;"""
            )
            turned.append(
                browser.js(
                    "const started = performance.now(); await goTo(1); "
                    "return performance.now() - started;"
                )
            )
        finally:
            browser.close()
    return {
        "first view interactive after": max(opened),
        "another token drawn, slowest": max(redrawn),
        "another token drawn, median": statistics.median(redrawn),
        "another utterance opened, slowest": max(turned),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table; return 1 if a limit is not kept."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--utterances", type=int, default=50, metavar="N")
    parser.add_argument("--tokens", type=int, default=30, metavar="N", help="content tokens")
    parser.add_argument("--frames", type=int, default=1000, metavar="N")
    parser.add_argument("--repetitions", type=int, default=3, metavar="N", help="of opening it")
    parser.add_argument("--folder", metavar="DIR", help="for the files (default: a temporary one)")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(dir=args.folder) as temporary:
        folder = Path(temporary)
        make_store(folder, args.utterances, args.tokens, args.frames)
        report, measured = build(folder)
        measured |= browse(report, args.repetitions)
    print("| what | measured | limit |\n| --- | ---: | ---: |")
    for name, (limit, unit) in LIMITS.items():
        print(f"| {name} | {measured[name]:.1f} {unit} | {limit:g} {unit} |")
    return int(any(measured[name] > limit for name, (limit, _) in LIMITS.items()))


if __name__ == "__main__":
    sys.exit(main())
