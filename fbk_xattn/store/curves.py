"""What decoding gave while a share of the input was removed, one file an utterance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fbk_xattn.store.directory import UtteranceStore

TEXTS = ("id", "src_lang", "tgt_lang", "src_text", "tgt_text")
# The two ways of going through the ranking of a saliency map.
DELETION, INSERTION = "deletion", "insertion"
MODES = (DELETION, INSERTION)


@dataclass(frozen=True)
class DecodedStep:
    """The best hypothesis at one step.

    Attributes:
        hypothesis: Detokenised text.
        token_ids: ``(S,)``, indices in the target dictionary, language tag and eos among them.
        positional_scores: ``(S,)``, natural-log probability of each token.
        score: As beam search ranked it.
    """

    hypothesis: str
    token_ids: NDArray[np.int64]
    positional_scores: NDArray[np.float32]
    score: float


@dataclass(frozen=True)
class DecodedCurve:
    """One utterance, decoded at every step of deletion or insertion.

    Attributes:
        id: Utterance id of the manifest.
        src_lang: Language spoken.
        tgt_lang: Language of the hypotheses.
        src_text: Transcript of the manifest.
        tgt_text: Reference of the manifest.
        percentages: ``(P,)``, share of the units removed (deletion) or kept (insertion), 0 to 100.
        n_removed: ``(P,)``, units that were zeroed at each step.
        n_units: Units of the utterance: cells, frames or encoder steps.
        steps: The ``P`` hypotheses.
    """

    id: str
    src_lang: str
    tgt_lang: str
    src_text: str
    tgt_text: str
    percentages: NDArray[np.int64]
    n_removed: NDArray[np.int64]
    n_units: int
    steps: tuple[DecodedStep, ...]

    @property
    def unmodified(self) -> DecodedStep:
        """The step at which nothing is removed: plain decoding."""
        return self.steps[int(np.argmin(self.n_removed))]


class CurveStore(UtteranceStore[DecodedCurve]):
    """The store of one deletion or insertion run: one :class:`DecodedCurve` an utterance."""

    KIND = "curves"

    @property
    def mode(self) -> str:
        """``"deletion"`` or ``"insertion"``."""
        return str(self.meta["parameters"].get("mode"))

    @property
    def map_name(self) -> str:
        """The map that ranked the units, as ``--deletion-map`` names it."""
        return str(self.meta["parameters"].get("--deletion-map"))

    @staticmethod
    def _to_arrays(record: DecodedCurve) -> dict[str, NDArray[Any]]:
        steps = record.steps
        return {
            **{name: np.array(getattr(record, name)) for name in TEXTS},
            "percentages": np.asarray(record.percentages, dtype=np.int64),
            "n_removed": np.asarray(record.n_removed, dtype=np.int64),
            "n_units": np.array(record.n_units, dtype=np.int64),
            "hypotheses": np.array([step.hypothesis for step in steps], dtype=np.str_),
            "scores": np.array([step.score for step in steps], dtype=np.float64),
            "n_tokens": np.array([len(step.token_ids) for step in steps], dtype=np.int64),
            "token_ids": np.concatenate([step.token_ids for step in steps]),
            "positional_scores": np.concatenate([step.positional_scores for step in steps]),
        }

    @staticmethod
    def _from_arrays(arrays: Mapping[str, NDArray[Any]]) -> DecodedCurve:
        ends = np.cumsum(arrays["n_tokens"])[:-1]
        steps = zip(
            arrays["hypotheses"],
            np.split(arrays["token_ids"], ends),
            np.split(arrays["positional_scores"], ends),
            arrays["scores"],
            strict=True,
        )
        return DecodedCurve(
            **{name: str(arrays[name]) for name in TEXTS},
            percentages=arrays["percentages"],
            n_removed=arrays["n_removed"],
            n_units=arrays["n_units"].item(),
            steps=tuple(
                DecodedStep(str(hypothesis), token_ids, positional_scores, float(score))
                for hypothesis, token_ids, positional_scores, score in steps
            ),
        )
