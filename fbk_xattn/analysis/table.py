"""The result of a correlation over a store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class CorrelationTable:
    """Correlation of cross-attention with saliency, of each layer and head (paper, Table 1).

    All matrices are ``(L + 1, H + 1)``; the last column is the mean over the heads of a layer, the
    last row the mean over the layers, the last cell the mean over all (of the cross-attention
    weights, before they are standardised).

    Attributes:
        target: ``"input"`` or ``"encoder"``.
        aggregation: How the saliency was brought to encoder steps; ``None`` for the encoder output,
            which needs none.
        ids: The ``U`` utterances of the table.
        per_utterance: ``(U, L + 1, H + 1)``, NaN where undefined.
        left_out: Utterances of the store that are not in the table: id to reason.
    """

    target: str
    aggregation: str | None
    ids: tuple[str, ...]
    per_utterance: NDArray[np.float64]
    left_out: Mapping[str, str] = field(default_factory=dict)

    @property
    def n_layers(self) -> int:
        """Number of decoder layers ``L``."""
        return int(self.per_utterance.shape[1] - 1)

    @property
    def n_heads(self) -> int:
        """Number of heads ``H`` of a layer."""
        return int(self.per_utterance.shape[2] - 1)

    @property
    def n_utterances(self) -> NDArray[np.int64]:
        """Number of utterances whose correlation is defined, which the mean is over."""
        return np.isfinite(self.per_utterance).sum(axis=0, dtype=np.int64)

    @property
    def n_undefined(self) -> NDArray[np.int64]:
        """Number of utterances whose correlation is undefined, which the mean is without."""
        return len(self.ids) - self.n_utterances

    @property
    def mean(self) -> NDArray[np.float64]:
        """Mean over the utterances whose correlation is defined; NaN where it never is."""
        total = np.nansum(self.per_utterance, axis=0)
        mean = np.full(total.shape, np.nan)
        return np.divide(total, self.n_utterances, out=mean, where=self.n_utterances > 0)

    @property
    def undefined_ids(self) -> tuple[str, ...]:
        """Utterances with at least one undefined correlation."""
        return tuple(
            utterance_id
            for utterance_id, values in zip(self.ids, self.per_utterance, strict=True)
            if np.isnan(values).any()
        )
