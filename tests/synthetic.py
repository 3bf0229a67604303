"""Made-up attributions and stores for tests."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from fbk_xattn.store import Attribution, AttributionStore, SegmentLevel, SegmentSaliency


def as_segments(dense):
    """Return the compact form of any ``(S, T, F)`` map: every cell is a segment of its own."""
    n_tokens, *shape = dense.shape
    n_cells = int(np.prod(shape))
    return SegmentSaliency(
        (
            SegmentLevel(
                labels=np.arange(n_cells, dtype=np.uint32).reshape(shape),
                numerator=dense.reshape(n_tokens, n_cells).astype(np.float32),
                denominator=np.ones(n_cells, dtype=np.int32),
            ),
        )
    )


def make_attribution(
    rng: np.random.Generator,
    *,
    S: int = 7,
    T: int = 22,
    F: int = 5,
    L: int = 2,
    H: int = 3,
    frames_per_step: int = 4,
    without: Iterable[str] = (),
    **fields,
) -> Attribution:
    """Make an utterance of random maps; ``S`` counts language tag and eos.

    ``without`` names the parts (fields of ``Attribution``) to leave out, ``fields`` overrides any.
    """
    n_steps = -(-T // frames_per_step)
    attention = rng.random((L, H, S, n_steps)) ** 3
    parts = {
        "cross_attention": (attention / attention.sum(-1, keepdims=True)).astype(np.float32),
        "encoder_saliency": rng.random((S, n_steps)).astype(np.float32),
        "input_saliency": as_segments(rng.random((S, T, F))),
    }
    values = {
        "id": "a/1",
        "speaker": "s",
        "src_lang": "en",
        "tgt_lang": "de",
        "src_text": "some words",
        "tgt_text": "ein paar Wörter",
        "hypothesis": "paar Wörter",
        "tokens": ("<lang:de>", *(f"▁w{n}" for n in range(S - 2)), "</s>"),
        "token_ids": np.arange(S),
        "positional_scores": np.full(S, -0.5, dtype=np.float32),
        "score": -0.5,
        "n_prefix": 1,
        "frames_per_step": frames_per_step,
        "fbank": rng.standard_normal((T, F)).astype(np.float32),
        **{name: part for name, part in parts.items() if name not in without},
        **fields,
    }
    return Attribution(**values)


def make_store(
    path: Path, attributions: Iterable[Attribution], **parameters: object
) -> AttributionStore:
    """Write a store of these utterances."""
    with AttributionStore.create(path, parameters=parameters) as store:
        for attribution in attributions:
            store.write(attribution)
    return store
