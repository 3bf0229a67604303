"""What the tests of the interactive report have in common: utterances and curves."""

from __future__ import annotations

import numpy as np
from synthetic import make_attribution

from fbk_xattn.store import CurveStore, SegmentLevel, SegmentSaliency
from fbk_xattn.store.curves import DecodedCurve, DecodedStep

T, F = 150, 80
EVIL = "</script><script>document.title='gotcha'</script><img src=x onerror=alert(1)>&amp;"
HEBREW = "שלום עולם טוב"


def segments(rng, S, T=T, F=F):
    """Saliency over three segmentations, two of them the same, with segments no mask hid."""
    coarse = (np.arange(T)[:, None] // 10) * (F // 8) + np.arange(F) // 8
    fine = (np.arange(T)[:, None] // 5) * (F // 4) + np.arange(F) // 4
    levels = []
    for labels in (coarse, fine, coarse):
        n = labels.max() + 1
        counts = rng.integers(50, 90, n)
        counts[: n // 20] = 0
        scores = (rng.random((S, n)) ** 4 * counts).astype(np.float32)
        levels.append(SegmentLevel(labels.astype(np.uint16), scores, counts.astype(np.int32)))
    return SegmentSaliency(tuple(levels))


def utterance(rng, name, S=9, **fields):
    if "input_saliency" not in fields.get("without", ()):
        fields["input_saliency"] = segments(rng, S)
    return make_attribution(rng, id=name, S=S, T=T, F=F, **fields)


def make_curves(path, map_name, beam=5):
    """Write a folder of deletion with two steps."""
    parameters = {"mode": "deletion", "--deletion-map": map_name, "--beam": beam}
    steps = tuple(
        DecodedStep(text, np.arange(3), np.zeros(3, np.float32), 0.0)
        for text in ("paar Wörter", "nichts")
    )
    with CurveStore.create(path, parameters) as store:
        store.write(
            DecodedCurve(
                id="a",
                src_lang="de",
                tgt_lang="de",
                src_text="x",
                tgt_text="paar Wörter",
                percentages=np.array([0, 100]),
                n_removed=np.array([0, 10]),
                n_units=10,
                steps=steps,
            )
        )
    return path
