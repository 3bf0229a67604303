"""The two maps of an utterance that are compared: its saliency and its cross-attention.

Both are ``(N, T')``: the ``N`` content tokens of the hypothesis (language tag and eos left out,
before anything else is computed) by the encoder steps, and both are still to be standardised.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fbk_xattn.analysis.aggregation import aggregate
from fbk_xattn.errors import InputError
from fbk_xattn.store import Attribution, AttributionStore

TARGETS = ("input", "encoder")
CROSS_ATTENTION = "cross-attention"
NAMES = {
    "input": "input saliency",
    "encoder": "encoder-output saliency",
    CROSS_ATTENTION: "cross-attention",
}
# Values of --cross-attention, what a store has of it, and the field's terms.
STORED_CROSS_ATTENTION = {"weights": "cross-attention", "norms": "norm-weighted cross-attention"}


def has_part(attribution: Attribution, part: str) -> bool:
    """Tell whether the utterance was saved with ``part`` (a key of :data:`NAMES`)."""
    values = {
        "input": attribution.input_saliency,
        "encoder": attribution.encoder_saliency,
        CROSS_ATTENTION: attribution.cross_attention,
    }
    return values[part] is not None


def n_encoder_steps(attribution: Attribution) -> int:
    """Return ``T'``, from the maps that are there or else from the number of frames."""
    for array in (attribution.cross_attention, attribution.encoder_saliency):
        if array is not None:
            return int(array.shape[-1])
    return int(-(-attribution.fbank.shape[0] // attribution.frames_per_step))


def saliency_map(
    attribution: Attribution, target: str, aggregation: str = "2d-max"
) -> NDArray[np.float64]:
    """Return the saliency of the content tokens at the resolution of the encoder output.

    Args:
        attribution: The utterance.
        target: ``"input"``, aggregated to encoder steps, or ``"encoder"``, taken as it is.
        aggregation: Name in :data:`~fbk_xattn.analysis.aggregation.AGGREGATIONS`, for the input.

    Returns:
        ``(N, T')``.

    Raises:
        InputError: No such target, the utterance was saved without it, its shapes disagree, or it
            has NaN or infinity.
    """
    check_target(target)
    n_tokens, n_steps = len(attribution.tokens), n_encoder_steps(attribution)
    if target == "encoder":
        encoder = attribution.encoder_saliency
        if encoder is None:
            raise lacks(attribution, target)
        _check_shape(attribution, target, encoder.shape, (n_tokens, n_steps))
        check_numbers(attribution, "encoder_saliency", encoder)
        return encoder[attribution.content].astype(np.float64)
    return to_encoder_steps(attribution, input_cells(attribution), aggregation)


def input_cells(attribution: Attribution) -> NDArray[np.float32]:
    """Return the input saliency of the content tokens before it is aggregated, ``(N, T, F)``.

    Raises:
        InputError: The utterance was saved without it, its shapes disagree, or it has NaN or
            infinity.
    """
    if attribution.input_saliency is None:
        raise lacks(attribution, "input")
    expected = (len(attribution.tokens), *attribution.fbank.shape)
    for number, level in enumerate(attribution.input_saliency.levels):
        shape = (level.numerator.shape[0], *level.labels.shape)
        _check_shape(attribution, "input", shape, expected)
        check_numbers(attribution, f"input_numerator_{number}", level.numerator)
    return attribution.input_saliency.dense(attribution.content)


def to_encoder_steps(
    attribution: Attribution, cells: NDArray[np.float32], aggregation: str
) -> NDArray[np.float64]:
    """Aggregate maps of an utterance ``(N, T, F)`` to its encoder steps, ``(N, T')``.

    Raises:
        InputError: No such aggregation, or the frames do not fit the encoder steps.
    """
    try:
        return aggregate(
            cells, n_encoder_steps(attribution), attribution.frames_per_step, aggregation
        )
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"utterance {attribution.id!r}: {error}") from None


def cross_attention_heads(attribution: Attribution) -> NDArray[np.float64]:
    """Return the cross-attention of the content tokens, of each layer and head.

    Returns:
        ``(L, H, N, T')``.

    Raises:
        InputError: The utterance was saved without cross-attention, its shapes disagree, or it has
            NaN or infinity.
    """
    weights = attribution.cross_attention
    if weights is None:
        raise lacks(attribution, CROSS_ATTENTION)
    expected = (len(attribution.tokens), n_encoder_steps(attribution))
    _check_shape(attribution, CROSS_ATTENTION, weights.shape[2:], expected)
    check_numbers(attribution, "cross_attention", weights)
    return weights[:, :, attribution.content].astype(np.float64)


def mean_cross_attention(
    attribution: Attribution,
    layers: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
) -> NDArray[np.float64]:
    """Return the cross-attention averaged over a set of layers and heads.

    Args:
        attribution: The utterance.
        layers: Decoder layers, from 0; all of them by default.
        heads: Heads of each of these layers, from 0; all of them by default.

    Returns:
        ``(N, T')``; rows sum to 1 if weights were stored, and not if norms were.

    Raises:
        InputError: The utterance was saved without cross-attention, or has no such layer or head.
    """
    weights = cross_attention_heads(attribution)
    for name, chosen, available in (
        ("layer", layers, weights.shape[0]),
        ("head", heads, weights.shape[1]),
    ):
        for number in chosen or ():
            if not 0 <= number < available:
                raise InputError(
                    f"{name} {number + 1}: expected 1 to {available}, as many as the "
                    f"cross-attention of utterance {attribution.id!r} has"
                )
    chosen_layers = range(weights.shape[0]) if layers is None else layers
    chosen_heads = range(weights.shape[1]) if heads is None else heads
    if not chosen_layers or not chosen_heads:
        raise InputError("cross-attention: no layer or no head chosen, expected at least one")
    return weights[np.ix_(chosen_layers, chosen_heads)].mean(axis=(0, 1))


def check_target(target: str) -> None:
    """Check the name of a target.

    Raises:
        InputError: It is not one of :data:`TARGETS`.
    """
    if target not in TARGETS:
        raise InputError(f"target {target!r}: expected one of {', '.join(TARGETS)}")


def flags_for(parts: Iterable[str]) -> str:
    """Return the flags of fairseq-generate that save these parts (keys of :data:`NAMES`)."""
    chosen = list(parts)
    explained = [part for part in TARGETS if part in chosen]
    flags = ["--explain " + " ".join(explained)] if explained else []
    return " ".join(flags + ["--save-cross-attention"] * (CROSS_ATTENTION in chosen))


def lacks(attribution: Attribution, part: str) -> InputError:
    """Say that an utterance was saved without a part (a key of :data:`NAMES`)."""
    return InputError(
        f"utterance {attribution.id!r}: saved without {NAMES[part]}, expected a run of "
        f"fairseq-generate with {flags_for([part])}"
    )


def _check_shape(
    attribution: Attribution, part: str, shape: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    if shape != expected:
        raise InputError(
            f"utterance {attribution.id!r}: {NAMES[part]} of the shape {shape}, expected "
            f"{expected} as its tokens, frames and encoder steps say"
        )


def check_numbers(attribution: Attribution, array: str, values: NDArray[np.floating[Any]]) -> None:
    """Check that an array, named as in the utterance's file, holds numbers alone.

    Raises:
        InputError: It has NaN or infinity.
    """
    n_bad = int(values.size - np.count_nonzero(np.isfinite(values)))
    if n_bad:
        raise InputError(
            f"utterance {attribution.id!r}: {array} has {n_bad} of {values.size} values that are "
            "NaN or infinite, expected numbers; delete its file and generate it again"
        )


def stored_cross_attention(store: AttributionStore) -> str:
    """Return what a store has of cross-attention, a name in :data:`STORED_CROSS_ATTENTION`.

    Raises:
        InputError: Something else than these.
    """
    stored = str(store.meta["parameters"].get("--cross-attention", "weights"))
    if stored not in STORED_CROSS_ATTENTION:
        raise InputError(
            f"{store.path}: --cross-attention {stored!r}, expected one of "
            f"{', '.join(STORED_CROSS_ATTENTION)}"
        )
    return stored
