"""An :class:`Attribution` as named numpy arrays without pickle, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fbk_xattn.store.attribution import Attribution, SegmentLevel, SegmentSaliency

TEXTS = ("id", "speaker", "src_lang", "tgt_lang", "src_text", "tgt_text", "hypothesis")
SCALARS = {"score": np.float64, "n_prefix": np.int64, "frames_per_step": np.int64}
ARRAYS = {"token_ids": np.int64, "positional_scores": np.float32, "fbank": np.float32}
OPTIONAL_ARRAYS = {
    "cross_attention": np.float32,
    "encoder_saliency": np.float32,
    "token_saliency": np.float32,
}


def to_arrays(attribution: Attribution) -> dict[str, NDArray[Any]]:
    """Return the arrays that :func:`from_arrays` turns back into ``attribution``."""
    arrays: dict[str, NDArray[Any]] = {name: np.array(getattr(attribution, name)) for name in TEXTS}
    arrays["tokens"] = np.array(attribution.tokens, dtype=np.str_)
    for name, dtype in {**SCALARS, **ARRAYS}.items():
        arrays[name] = np.asarray(getattr(attribution, name), dtype=dtype)
    for name, dtype in OPTIONAL_ARRAYS.items():
        if getattr(attribution, name) is not None:
            arrays[name] = np.asarray(getattr(attribution, name), dtype=dtype)
    if attribution.input_saliency is not None:
        for number, level in enumerate(attribution.input_saliency.levels):
            n_segments = level.denominator.shape[0]
            small = np.uint16 if n_segments <= np.iinfo(np.uint16).max else np.uint32
            arrays[f"input_labels_{number}"] = level.labels.astype(small)
            arrays[f"input_numerator_{number}"] = level.numerator.astype(np.float32)
            arrays[f"input_denominator_{number}"] = level.denominator.astype(np.int32)
    return arrays


def from_arrays(arrays: Mapping[str, NDArray[Any]]) -> Attribution:
    """Rebuild the attribution of :func:`to_arrays`.

    Raises:
        KeyError: An array is missing.
    """
    n_levels = sum(name.startswith("input_labels_") for name in arrays)
    levels = tuple(
        SegmentLevel(
            labels=arrays[f"input_labels_{number}"],
            numerator=arrays[f"input_numerator_{number}"],
            denominator=arrays[f"input_denominator_{number}"],
        )
        for number in range(n_levels)
    )
    fields: dict[str, Any] = {name: str(arrays[name]) for name in TEXTS}
    fields |= {name: arrays[name].item() for name in SCALARS}
    fields |= {name: arrays[name] for name in ARRAYS}
    fields |= {name: arrays[name] for name in OPTIONAL_ARRAYS if name in arrays}
    return Attribution(
        tokens=tuple(str(token) for token in arrays["tokens"]),
        input_saliency=SegmentSaliency(levels) if levels else None,
        **fields,
    )
