"""The stores of examples/prompts/study, made up and small."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
from synthetic import as_segments, make_attribution

from examples.prompts.study.settings import CURVES, EXPLAINED, PROBABILITIES
from fbk_xattn.store import AttributionStore, CurveStore, DecodedCurve, DecodedStep

PERCENTAGES = np.array([0, 50, 100])
LANGUAGES = {"asr-en": ("en", "en"), "asr-it": ("it", "it"), "st-it-en": ("it", "en")}
REFERENCE = "please enter your agent number now"


def utterances(n):
    """Return id, languages and speaker of ``n`` utterances of each task."""
    return [
        (f"{task}/{i}", languages, f"it_{('carlo', 'menardi')[i % 2]}" * (languages[0] == "it"))
        for task, languages in LANGUAGES.items()
        for i in range(n)
    ]


def parameters(name):
    """Return what the store of a name was made with."""
    masks, _, seed = name.partition("-")
    return {
        "checkpoint SHA-256": "abc",
        "feature transforms": ["utterance_cmvn"],
        "--beam": 5,
        "--explain": ["input", "encoder"],
        "--num-masks": int(masks[1:]) if name[0] == "n" else 20_000,
        "--seed": int(seed or 1),
        "--explanation-precision": name if name[:2] in ("fp", "bf") else "fp32",
        "--input-occlusion-probability": PROBABILITIES.get(name, 0.5),
        "--encoder-occlusion-probability": PROBABILITIES.get(name, 0.7),
    }


def make_explained(work: Path, name: str, n: int) -> None:
    """Write a store: encoder saliency follows cross-attention, and more masks mean less noise."""
    noise = {"n2000": 0.2, "n5000": 0.1, "n10000": 0.05, "n20000": 0.02}.get(name[:-2], 0.001)
    with AttributionStore.create(work / "stores" / name, parameters(name)) as store:
        for number, (utterance_id, (source, target), speaker) in enumerate(utterances(n)):
            attribution = make_attribution(
                np.random.default_rng(number), id=utterance_id, src_lang=source, tgt_lang=target,
                speaker=speaker or "en_allison", tgt_text=REFERENCE,
                hypothesis=REFERENCE.replace("now", "please"),
            )  # fmt: skip
            rng = np.random.default_rng([number, EXPLAINED.index(name)])
            encoder = attribution.cross_attention.mean(axis=(0, 1))
            dense = attribution.input_saliency.dense()
            store.write(
                dataclasses.replace(
                    attribution,
                    encoder_saliency=encoder + noise * rng.random(encoder.shape),
                    input_saliency=as_segments(dense + 5 * noise * rng.random(dense.shape)),
                )
            )


def step(text):
    """Return a step of deletion."""
    return DecodedStep(text, np.arange(3), np.zeros(3, dtype=np.float32), -0.5)


def make_curves(work: Path, name: str, n: int) -> None:
    """Write curves: half of the words are gone at 50 percent, and fewer with a random map."""
    words = REFERENCE.split()
    half = " ".join(words[: 5 if "random" in name else 3])
    mode = "insertion" if name.startswith("insert") else "deletion"
    with CurveStore.create(work / "deleted" / name, parameters("main") | {"mode": mode}) as store:
        for utterance_id, (source, target), _ in utterances(n):
            store.write(
                DecodedCurve(
                    id=utterance_id, src_lang=source, tgt_lang=target, src_text="",
                    tgt_text=REFERENCE, percentages=PERCENTAGES, n_removed=PERCENTAGES,
                    n_units=100, steps=tuple(map(step, (REFERENCE, half, ""))),
                )
            )  # fmt: skip


def make_study(work: Path, n: int = 4) -> Path:
    """Write everything that explain.sh makes."""
    for name in EXPLAINED:
        make_explained(work, name, n)
    for name in CURVES:
        make_curves(work, name, n)
    return work
