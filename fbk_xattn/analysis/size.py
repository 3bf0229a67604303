"""Size: how compact a saliency map is, the share of it above each threshold (lower is better)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fbk_xattn.analysis.maps import NAMES, flags_for
from fbk_xattn.analysis.metric import Metric, area
from fbk_xattn.analysis.normalizers import normalize
from fbk_xattn.analysis.ranking import all_cells
from fbk_xattn.errors import InputError
from fbk_xattn.store import AttributionStore

SIZE = Metric("size", "lower", 0.0, 100.0, "Fucci et al. 2024, arXiv:2411.01710", "%")

THRESHOLDS: NDArray[np.float64] = np.arange(21) / 20
FloatArray = NDArray[np.floating]
Progress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class SizeCurve:
    """Size of the input saliency of a store.

    Attributes:
        ids: The ``U`` utterances.
        thresholds: ``(21,)``, 0, 0.05, ..., 1.
        per_utterance: ``(U, 21)``, percentage of the cells of an utterance's maps, over all
            tokens, whose normalised saliency is at least the threshold.
        without_range: Utterances with tokens whose map is one and the same number everywhere, and
            how many: no threshold counts their cells.
        left_out: Utterances of the store that have no input saliency.
    """

    ids: tuple[str, ...]
    per_utterance: NDArray[np.float64]
    thresholds: NDArray[np.float64] = field(default_factory=lambda: THRESHOLDS)
    without_range: Mapping[str, int] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()

    @property
    def mean(self) -> NDArray[np.float64]:
        """``(21,)``, mean over the utterances at each threshold."""
        mean: NDArray[np.float64] = self.per_utterance.mean(axis=0)
        return mean

    @property
    def auc(self) -> float:
        """Area under :attr:`mean` by the trapezoidal rule, 0 (compact) to 100."""
        return area(self.thresholds, self.mean)


def size_of_maps(
    saliency: FloatArray, token_saliency: FloatArray | None = None
) -> NDArray[np.float64]:
    """Return the percentage of cells at or above each threshold, of one utterance.

    Maps are standardised and scaled to 0 to 1 as in the published system, together with the map of
    the previous tokens; all rows count, language tag and eos included. The cells of a row without
    a range (one and the same number everywhere) are above no threshold.

    Args:
        saliency: ``(S, ...)``, one map a token.
        token_saliency: ``(S, S)`` of the previous tokens; 0 by default.

    Returns:
        ``(21,)`` for the thresholds 0, 0.05, ..., 1; from 0 to 100, not increasing.

    Example:
        >>> size_of_maps(np.array([[0.0, 1.0, 2.0, 4.0]]))[[0, 5, 6, 20]]
        array([100.,  75.,  50.,  25.])
    """
    return _size_and_flat_rows(saliency, token_saliency)[0]


def _size_and_flat_rows(
    saliency: FloatArray, token_saliency: FloatArray | None
) -> tuple[NDArray[np.float64], int]:
    """Return :func:`size_of_maps` and the number of rows without a range."""
    rows = normalize(saliency, token_saliency).saliency.reshape(len(saliency), -1)
    has_range = np.isfinite(rows).all(axis=1)
    values = np.sort(rows[has_range], axis=None)
    n_below = np.searchsorted(values, THRESHOLDS, side="left")
    return 100.0 * (len(values) - n_below) / rows.size, int(np.sum(~has_range))


def size(store: AttributionStore, progress: Progress | None = None) -> SizeCurve:
    """Return how compact the input saliency of a store is.

    Args:
        store: Of ``fairseq-generate --explain input``.
        progress: Called with the number of utterances done and of all.

    Raises:
        InputError: The store is empty or has a damaged file, no utterance has input saliency, or
            an utterance's has NaN or infinite values.
    """
    ids = store.ids()
    if not ids:
        raise InputError(f"{store.path}: no utterance in this store, expected at least one")
    curves: dict[str, NDArray[np.float64]] = {}
    without_range: dict[str, int] = {}
    for number, utterance_id in enumerate(ids, start=1):
        attribution = store.read(utterance_id)
        if attribution.input_saliency is not None:
            dense = all_cells(attribution)
            curve, flat = _size_and_flat_rows(dense, attribution.token_saliency)
            curves[utterance_id] = curve
            if flat:
                without_range[utterance_id] = flat
        if progress:
            progress(number, len(ids))
    if not curves:
        raise InputError(
            f"{store.path}: {len(ids)} utterances without {NAMES['input']}, expected a run of "
            f"fairseq-generate with {flags_for(['input'])}"
        )
    return SizeCurve(
        ids=tuple(curves),
        per_utterance=np.stack(list(curves.values())),
        without_range=without_range,
        left_out=tuple(name for name in ids if name not in curves),
    )
