"""What is correlated, and the result over a store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from fbk_xattn.analysis.aggregation import AGGREGATIONS
from fbk_xattn.analysis.bootstrap import Bootstrap
from fbk_xattn.analysis.coefficients import coefficient
from fbk_xattn.analysis.maps import check_target
from fbk_xattn.analysis.normalization import STANDARDISED
from fbk_xattn.errors import InputError


@dataclass(frozen=True)
class Setting:
    """What is correlated with cross-attention, and how; the defaults are the paper's.

    Attributes:
        target: Saliency of the ``"input"`` or of the ``"encoder"`` output.
        aggregation: Name in :data:`~fbk_xattn.analysis.aggregation.AGGREGATIONS`, for the input;
            ``None`` for the encoder output, which needs none.
        normalize: Which map is standardised first, a name in
            :data:`~fbk_xattn.analysis.normalization.STANDARDISED`.
        coefficient: Name in :data:`~fbk_xattn.analysis.coefficients.COEFFICIENTS`.
    """

    target: str
    aggregation: str | None = "2d-max"
    normalize: str = "both"
    coefficient: str = "pearson"

    def __post_init__(self) -> None:
        """Check the names, and drop the aggregation of the encoder output.

        Raises:
            InputError: One of them is unknown.
        """
        check_target(self.target)
        if self.aggregation not in (*AGGREGATIONS, None):
            raise InputError(
                f"aggregation {self.aggregation!r}: expected one of {', '.join(AGGREGATIONS)}"
            )
        if self.normalize not in STANDARDISED:
            raise InputError(
                f"normalisation {self.normalize!r}: expected one of {', '.join(STANDARDISED)}"
            )
        coefficient(self.coefficient)
        if self.target == "encoder":
            object.__setattr__(self, "aggregation", None)


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
        left_out_languages: Languages of these, by id, as in ``languages``; without those unknown.
        normalize: Which of the maps were standardised (:class:`Setting`).
        coefficient: Which correlation it is (:class:`Setting`).
        languages: ``U`` pairs of the language spoken and that of the hypothesis; empty if unknown.
        cross_attention: What was stored of it, a name in
            :data:`~fbk_xattn.analysis.maps.STORED_CROSS_ATTENTION`.
    """

    target: str
    aggregation: str | None
    ids: tuple[str, ...]
    per_utterance: NDArray[np.float64]
    left_out: Mapping[str, str] = field(default_factory=dict)
    normalize: str = "both"
    coefficient: str = "pearson"
    languages: tuple[tuple[str, str], ...] = ()
    cross_attention: str = "weights"
    left_out_languages: Mapping[str, tuple[str, str]] = field(default_factory=dict)

    @property
    def setting(self) -> Setting:
        """What was correlated, and how."""
        return Setting(self.target, self.aggregation, self.normalize, self.coefficient)

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

    def interval(self, bootstrap: Bootstrap | None = None) -> NDArray[np.float64]:
        """Return the bootstrap interval of the mean, over utterances.

        Args:
            bootstrap: Resamples, level and seed; by default 1,000, 95 % and 0.

        Returns:
            ``(2, L + 1, H + 1)``, low and high ends; NaN where fewer than two are defined.
        """
        return (bootstrap or Bootstrap()).interval(self.per_utterance)

    def by_task(self) -> dict[str, CorrelationTable]:
        """Split the utterances by task, as models are compared task by task (paper, Tables 2, 3).

        Returns:
            Tables by the task's name, ``ASR en`` or ``ST en-it``, in alphabetical order, each with
            what was left out of its task. A task all of which was left out has no table.
        """
        names = [task_name(*pair) for pair in self.languages]
        return {name: self._of_task(name, names) for name in sorted(set(names))}

    def _of_task(self, task: str, names: list[str]) -> CorrelationTable:
        languages = {
            utterance_id: pair
            for utterance_id, pair in self.left_out_languages.items()
            if task_name(*pair) == task
        }
        return replace(
            self.only([row for row, name in enumerate(names) if name == task]),
            left_out={utterance_id: self.left_out[utterance_id] for utterance_id in languages},
            left_out_languages=languages,
        )

    def only(self, rows: list[int]) -> CorrelationTable:
        """Return the table of these utterances (rows of ``per_utterance``), none left out."""
        return replace(
            self,
            ids=tuple(self.ids[row] for row in rows),
            per_utterance=self.per_utterance[rows],
            left_out={},
            left_out_languages={},
            languages=tuple(self.languages[row] for row in rows) if self.languages else (),
        )


def task_name(src_lang: str, tgt_lang: str) -> str:
    """Return ``ASR en`` where the hypothesis is in the language spoken, and else ``ST en-it``."""
    return f"ASR {src_lang}" if src_lang == tgt_lang else f"ST {src_lang}-{tgt_lang}"
