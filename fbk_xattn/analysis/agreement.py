"""How alike the saliency maps of two stores are, token by token.

Two runs that differ in their masks alone (``--seed``) show how far a map has converged; two that
differ in ``--explanation-precision`` show what precision costs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fbk_xattn.analysis.coefficients import unit
from fbk_xattn.analysis.comparison import check_same_utterances, same_features
from fbk_xattn.analysis.maps import check_target, input_cells, saliency_map
from fbk_xattn.errors import InputError
from fbk_xattn.store import Attribution, AttributionStore

Progress = Callable[[int, int], None]
QUANTILE = 0.05
# Of stores whose maps are to be compared: of other models, or of other features, they differ in
# more than their maps.
SHARED = ("checkpoint SHA-256", "feature transforms")


@dataclass(frozen=True, eq=False)
class Agreement:
    """Pearson's r of two maps of each of ``M`` content tokens.

    Attributes:
        target: ``"input"`` or ``"encoder"``.
        aggregation: How the input maps were brought to encoder steps; ``None`` where cells were
            compared, and for the encoder output.
        ids: The ``U`` utterances.
        utterance: ``(M,)``, the number of each token's utterance in ``ids``.
        tokens: The ``M`` tokens.
        correlation: ``(M,)`` from -1 to 1; NaN where a map is one number everywhere.
        other_hypotheses: Utterances whose tokens differ, and which are therefore in none of the
            above.
    """

    target: str
    aggregation: str | None
    ids: tuple[str, ...]
    utterance: NDArray[np.int64]
    tokens: tuple[str, ...]
    correlation: NDArray[np.float64]
    other_hypotheses: tuple[str, ...] = ()

    @property
    def defined(self) -> NDArray[np.float64]:
        """The correlations that are defined."""
        return self.correlation[np.isfinite(self.correlation)]

    @property
    def n_undefined(self) -> int:
        """Number of tokens without a correlation."""
        return len(self.correlation) - len(self.defined)

    @property
    def median(self) -> float:
        """Median over the tokens; NaN if there is none."""
        return self.quantile(0.5)

    @property
    def least(self) -> float:
        """Least correlation of a token; NaN if there is none."""
        return self.quantile(0.0)

    def quantile(self, level: float = QUANTILE) -> float:
        """Return a quantile over the tokens; NaN if there is none.

        Args:
            level: From 0 to 1.
        """
        return float(np.quantile(self.defined, level)) if self.defined.size else float("nan")


def pearson_by_token(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.float64]:
    """Correlate two maps over all cells of each token.

    Args:
        a: ``(S, ...)``, one map a token.
        b: Same shape.

    Returns:
        ``(S,)`` from -1 to 1; NaN where one of the maps is one number everywhere.

    Example:
        >>> pearson_by_token(np.array([[1.0, 2.0], [3.0, 3.0]]), np.array([[4.0, 8.0], [1.0, 2.0]]))
        array([ 1., nan])
    """
    if a.size == 0:
        return np.full(len(a), np.nan)
    x, y = (map_.reshape(len(map_), -1).astype(np.float64) for map_ in (a, b))
    with np.errstate(invalid="ignore", divide="ignore"):
        r = np.einsum("sk,sk->s", unit(x), unit(y))
    return np.clip(r, -1.0, 1.0)


def agreement(
    one: AttributionStore,
    other: AttributionStore,
    target: str,
    aggregation: str | None = None,
    progress: Progress | None = None,
) -> Agreement:
    """Correlate the saliency maps of two stores, token by token.

    Language tag and eos are left out. Maps are compared as they are stored; standardisation of a
    token's map would not change its correlation.

    Args:
        one: A store of explained utterances.
        other: Another of the same model and the same utterances.
        target: ``"input"`` or ``"encoder"`` (encoder output).
        aggregation: To compare input maps at encoder steps, a name in
            :data:`~fbk_xattn.analysis.aggregation.AGGREGATIONS`; by default cells are compared.
        progress: Called with the number of utterances done and of all.

    Raises:
        InputError: Unknown name; the stores are of different models, features or utterances, or
            are empty; an utterance lacks the target or has NaN; or no utterance has the same
            hypothesis in both.
    """
    check_target(target)
    theirs, ours = one.meta["parameters"], other.meta["parameters"]
    for name in SHARED:
        if theirs.get(name) != ours.get(name):
            raise InputError(
                f"{other.path}: {name} is {ours.get(name)}, but {theirs.get(name)} in {one.path}; "
                "expected maps of the same model and features"
            )
    ids = one.ids()
    check_same_utterances({str(one.path): ids, str(other.path): other.ids()})
    if not ids:
        raise InputError(f"{one.path}: no utterance in this store, expected at least one")
    kept, different, tokens, values = [], [], [], []
    for number, utterance_id in enumerate(ids, start=1):
        a, b = one.read(utterance_id), other.read(utterance_id)
        if not same_features(a.fbank, b.fbank):
            raise InputError(
                f"{other.path}: utterance {utterance_id!r} has other features than in {one.path}, "
                "expected maps of the same model and features"
            )
        if a.tokens == b.tokens:
            kept.append(utterance_id)
            tokens.append(a.tokens[a.content])
            values.append(pearson_by_token(*(_map(each, target, aggregation) for each in (a, b))))
        else:
            different.append(utterance_id)
        if progress:
            progress(number, len(ids))
    if not kept:
        raise InputError(
            f"{other.path}: no utterance has the same hypothesis as in {one.path}, expected runs "
            "that decode alike"
        )
    return Agreement(
        target=target,
        aggregation=aggregation if target == "input" else None,
        ids=tuple(kept),
        utterance=np.repeat(np.arange(len(kept)), [len(value) for value in values]),
        tokens=tuple(token for some in tokens for token in some),
        correlation=np.concatenate(values),
        other_hypotheses=tuple(different),
    )


def _map(attribution: Attribution, target: str, aggregation: str | None) -> NDArray[Any]:
    if target == "input" and aggregation is None:
        return input_cells(attribution)
    return saliency_map(attribution, target, aggregation or "2d-max")
