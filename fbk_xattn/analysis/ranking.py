"""What deletion and insertion remove, and in which order: units ranked by a saliency map.

The map of a sentence is the mean over all rows of the hypothesis, language tag and eos included, of
the maps of its tokens after the published normalisation (SPES, Fucci et al. 2024,
arXiv:2411.01710): standardised, then scaled to 0 to 1 together with the map of the previous tokens.
A row without a range (one and the same number everywhere) ranks nothing and counts as 0.

Random maps are there to compare with: what a map explains shows in how far deletion in its order is
from deletion in no order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from fbk_xattn.analysis.maps import (
    CROSS_ATTENTION,
    check_numbers,
    lacks,
    n_encoder_steps,
    to_encoder_steps,
)
from fbk_xattn.analysis.normalizers import normalize
from fbk_xattn.errors import InputError
from fbk_xattn.store import Attribution
from fbk_xattn.store.curves import DELETION, MODES

FloatArray = NDArray[np.floating]
ENCODER_STEPS = "encoder steps"


@dataclass(frozen=True)
class Ranking:
    """How the units of an utterance are ranked.

    Attributes:
        map_name: Name in :data:`RANKING_MAPS`.
        aggregation: Of ``input-frames``, see :mod:`fbk_xattn.analysis.aggregation`.
        layers: Decoder layers of ``cross-attention``, from 0; ``None`` for all.
        heads: Heads of each of these layers, from 0; ``None`` for all.
        seed: Of the random maps, 0 or more.
    """

    map_name: str = "input"
    aggregation: str = "2d-max"
    layers: tuple[int, ...] | None = None
    heads: tuple[int, ...] | None = None
    seed: int = 0

    def sentence_map(self, attribution: Attribution) -> NDArray[np.float64]:
        """Return the map of the whole hypothesis over the units.

        Args:
            attribution: The utterance, with the part of :data:`RANKING_MAPS`.

        Returns:
            From 0 (least salient) to 1: ``(T, F)`` cells of ``input`` and ``random``, ``(T,)``
            frames of ``input-frames``, ``cross-attention`` and ``random-frames``, ``(T',)`` encoder
            steps of ``encoder`` and ``random-encoder``. Of ``input-frames`` and
            ``cross-attention``, the frames of an encoder step, ``frames_per_step`` of them, all
            have its value (nearest neighbour).

        Raises:
            InputError: The utterance lacks the part, layer or head, or the part has NaN or
                infinite values.
        """
        return RANKING_MAPS[self.map_name].sentence_map(attribution, self)


@dataclass(frozen=True)
class RankingMap:
    """A kind of map: the part of the store it is made of, and the units it ranks.

    Attributes:
        part: Key of :data:`~fbk_xattn.analysis.maps.NAMES`; ``None`` for a map that needs none.
        unit: What is removed: ``cells``, ``frames`` or :data:`ENCODER_STEPS`.
        sentence_map: From an utterance and the settings.
    """

    part: str | None
    unit: str
    sentence_map: Callable[[Attribution, Ranking], NDArray[np.float64]]


def ascending(sentence_map: FloatArray) -> NDArray[np.intp]:
    """Return the units from the least to the most salient, ``(K,)`` indices of the flat map.

    Ties are broken by position: of two equal units the earlier one (in time, then in frequency)
    comes first, so deletion removes it last. All cells of a superpixel are equal, hence ties are
    the rule.
    """
    return np.argsort(sentence_map, axis=None, kind="stable")


def removed(
    order: NDArray[np.integer], percentages: Sequence[int] | NDArray[np.integer], mode: str
) -> NDArray[np.bool_]:
    """Tell which units are zeroed at each step.

    With ``n = floor(K * p / 100)`` at ``p`` percent, deletion zeroes the last ``n`` units of the
    order, and insertion all but those.

    Args:
        order: ``(K,)``, units from the least to the most salient.
        percentages: ``(P,)``, 0 to 100.
        mode: ``"deletion"`` or ``"insertion"``.

    Returns:
        ``(P, K)``, true where the unit is zeroed.

    Raises:
        InputError: Unknown mode.

    Example:
        >>> removed(np.array([2, 0, 3, 1]), [0, 25, 50], "deletion").astype(int)
        array([[0, 0, 0, 0],
               [0, 1, 0, 0],
               [0, 1, 0, 1]])
    """
    if mode not in MODES:
        raise InputError(f"mode {mode!r}: expected one of {', '.join(MODES)}")
    K = len(order)
    rank = np.empty(K, dtype=np.int64)
    rank[order] = np.arange(K)
    n = K * np.asarray(percentages, dtype=np.int64) // 100
    among_the_last: NDArray[np.bool_] = rank >= K - n[:, np.newaxis]
    return among_the_last if mode == DELETION else ~among_the_last


def sentence_mean(
    maps: FloatArray, token_saliency: NDArray[np.float32] | None = None
) -> NDArray[np.float64]:
    """Average the normalised maps of all tokens.

    Args:
        maps: ``(S, ...)``, one map a token.
        token_saliency: ``(S, S)`` of the previous tokens, if they were occluded too.

    Returns:
        ``(...)``, from 0 to 1.
    """
    # NaN is a row without a range.
    rows = np.nan_to_num(normalize(maps, token_saliency).saliency, nan=0.0)
    mean: NDArray[np.float64] = rows.mean(axis=0)
    return mean


def all_cells(attribution: Attribution) -> NDArray[np.float32]:
    """Return the input saliency of all tokens, language tag and eos included, ``(S, T, F)``.

    Raises:
        InputError: The utterance was saved without it, or it has NaN or infinite values.
    """
    if attribution.input_saliency is None:
        raise lacks(attribution, "input")
    for number, level in enumerate(attribution.input_saliency.levels):
        check_numbers(attribution, f"input_numerator_{number}", level.numerator)
    if attribution.token_saliency is not None:
        check_numbers(attribution, "token_saliency", attribution.token_saliency)
    return attribution.input_saliency.dense()


def _cells(attribution: Attribution, _: Ranking) -> NDArray[np.float64]:
    return sentence_mean(all_cells(attribution), attribution.token_saliency)


def _input_frames(attribution: Attribution, ranking: Ranking) -> NDArray[np.float64]:
    steps = to_encoder_steps(attribution, all_cells(attribution), ranking.aggregation)
    return _to_frames(sentence_mean(steps, attribution.token_saliency), attribution)


def _cross_attention_frames(attribution: Attribution, ranking: Ranking) -> NDArray[np.float64]:
    weights = attribution.cross_attention
    if weights is None:
        raise lacks(attribution, CROSS_ATTENTION)
    check_numbers(attribution, "cross_attention", weights)
    layers = _chosen(attribution, "layer", ranking.layers, weights.shape[0])
    heads = _chosen(attribution, "head", ranking.heads, weights.shape[1])
    mean = weights[np.ix_(layers, heads)].mean(axis=(0, 1), dtype=np.float64)
    return _to_frames(sentence_mean(mean), attribution)


def _encoder_steps(attribution: Attribution, _: Ranking) -> NDArray[np.float64]:
    saliency = attribution.encoder_saliency
    if saliency is None:
        raise lacks(attribution, "encoder")
    check_numbers(attribution, "encoder_saliency", saliency)
    return sentence_mean(saliency)


def _random_cells(attribution: Attribution, ranking: Ranking) -> NDArray[np.float64]:
    return _random(attribution, ranking, attribution.fbank.shape)


def _random_frames(attribution: Attribution, ranking: Ranking) -> NDArray[np.float64]:
    return _random(attribution, ranking, attribution.fbank.shape[:1])


def _random_encoder_steps(attribution: Attribution, ranking: Ranking) -> NDArray[np.float64]:
    return _random(attribution, ranking, (n_encoder_steps(attribution),))


def _random(
    attribution: Attribution, ranking: Ranking, shape: tuple[int, ...]
) -> NDArray[np.float64]:
    """Return numbers that depend on the seed, the map and the utterance alone."""
    key = f"{ranking.seed}\0{ranking.map_name}\0{attribution.id}".encode()
    digest = int.from_bytes(blake2b(key, digest_size=16).digest(), "little")
    return np.random.Generator(np.random.Philox(key=digest)).random(shape)


RANKING_MAPS: Mapping[str, RankingMap] = {
    "input": RankingMap("input", "cells", _cells),
    "input-frames": RankingMap("input", "frames", _input_frames),
    "cross-attention": RankingMap(CROSS_ATTENTION, "frames", _cross_attention_frames),
    "encoder": RankingMap("encoder", ENCODER_STEPS, _encoder_steps),
    "random": RankingMap(None, "cells", _random_cells),
    "random-frames": RankingMap(None, "frames", _random_frames),
    "random-encoder": RankingMap(None, ENCODER_STEPS, _random_encoder_steps),
}


def _to_frames(steps: NDArray[np.float64], attribution: Attribution) -> NDArray[np.float64]:
    """Give each of the ``T`` frames the value of its encoder step."""
    return np.repeat(steps, attribution.frames_per_step)[: len(attribution.fbank)]


def _chosen(
    attribution: Attribution, name: str, chosen: Sequence[int] | None, available: int
) -> Sequence[int]:
    for number in chosen or ():
        if not 0 <= number < available:
            raise InputError(
                f"utterance {attribution.id!r}: no {name} {number + 1} in its cross-attention, "
                f"expected 1 to {available}"
            )
    return range(available) if chosen is None else chosen
