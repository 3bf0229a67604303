"""Correlation token by token, whose distribution shows what a mean hides.

A model whose cross-attention is right for most tokens and looks elsewhere for some has the same
mean as one that is half right for all. So each content token gets its own correlation: that of its
row of the cross-attention with its row of the saliency, over the encoder steps, after both were
standardised as for the whole map.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fbk_xattn.analysis.bootstrap import Bootstrap
from fbk_xattn.analysis.coefficients import coefficient
from fbk_xattn.analysis.collecting import Collector, Progress, UtteranceMaps, collect
from fbk_xattn.analysis.table import Setting
from fbk_xattn.analysis.words import WORD_START, word_slices, word_text
from fbk_xattn.errors import InputError
from fbk_xattn.store import Attribution, AttributionStore

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
# Groups of token lengths in characters (without the mark of a word's start): from, to.
LENGTHS = ((0, 0), (1, 1), (2, 2), (3, 3), (4, 5), (6, None))
N_PARTS = 4  # of the hypothesis, for groups by position


@dataclass(frozen=True, eq=False)
class TokenTable:
    """Correlations of the ``M`` content tokens of a store.

    Attributes:
        setting: What was correlated, and how.
        ids: The ``U`` utterances of the table.
        utterance: ``(M,)``, the number of each token's utterance in ``ids``.
        tokens: The ``M`` tokens.
        position: ``(M,)``, the middle of the token in its hypothesis, between 0 and 1.
        correlation: ``(L + 1, M)`` from -1 to 1, NaN where undefined; of each layer, averaged over
            its heads, and in the last row of all layers and heads averaged.
        left_out: Utterances of the store that are not in the table: id to reason.
        words: How tokens were joined to words (``mean`` or ``max``), which then are the table's
            tokens, each with SentencePiece's mark; ``None`` where they were not.
        cross_attention: What was stored of it, a name in
            :data:`~fbk_xattn.analysis.maps.STORED_CROSS_ATTENTION`.
    """

    setting: Setting
    ids: tuple[str, ...]
    utterance: NDArray[np.int64]
    tokens: tuple[str, ...]
    position: NDArray[np.float64]
    correlation: NDArray[np.float64]
    left_out: Mapping[str, str] = field(default_factory=dict)
    words: str | None = None
    cross_attention: str = "weights"

    @property
    def length(self) -> NDArray[np.int64]:
        """Number of characters of each token, without the mark of a word's start, ``(M,)``."""
        return np.array([len(token.removeprefix(WORD_START)) for token in self.tokens], np.int64)

    @property
    def starts_word(self) -> NDArray[np.bool_]:
        """Whether each token is the first of a word (in a SentencePiece vocabulary), ``(M,)``."""
        return np.array([token.startswith(WORD_START) for token in self.tokens], np.bool_)

    @property
    def is_defined(self) -> bool:
        """Whether any correlation is defined."""
        return bool(np.isfinite(self.correlation).any())

    @property
    def n_layers(self) -> int:
        """Number of decoder layers ``L``."""
        return int(self.correlation.shape[0] - 1)

    def groups(self) -> dict[str, NDArray[np.bool_]]:
        """Return groups of tokens that a systematic misalignment may tell apart.

        Returns:
            Masks ``(M,)`` by name: by start of word, by length in characters, and by quarter of the
            hypothesis. Groups of one kind hold every token once; lengths without token are left
            away, and so is the first kind where tokens are words.
        """
        starts, length = self.starts_word, self.length
        groups = {} if self.words else {"start of a word": starts, "inside a word": ~starts}
        for low, high in LENGTHS:
            mask = (length >= low) & (length <= (np.inf if high is None else high))
            if mask.any():
                groups[_length_name(low, high)] = mask
        part = np.minimum((self.position * N_PARTS).astype(int), N_PARTS - 1)
        for number in range(N_PARTS):
            groups[f"quarter {number + 1} of the hypothesis"] = part == number
        return groups

    def summary(
        self,
        row: int = -1,
        chosen: NDArray[np.bool_] | None = None,
        bootstrap: Bootstrap | None = None,
    ) -> TokenSummary:
        """Summarise the correlations of some tokens.

        Args:
            row: Layer from 0, or -1 for all layers averaged.
            chosen: ``(M,)``, which tokens; all of them by default.
            bootstrap: For the interval of the mean, over utterances.
        """
        mask = np.ones(len(self.tokens), np.bool_) if chosen is None else chosen
        values, utterance = self.correlation[row][mask], self.utterance[mask]
        defined = np.isfinite(values)
        values, utterance = values[defined], utterance[defined]
        totals = np.bincount(utterance, weights=values, minlength=len(self.ids))
        counts = np.bincount(utterance, minlength=len(self.ids))
        low, high = (bootstrap or Bootstrap()).interval_of_ratio(totals, counts).tolist()
        quantiles = (
            np.quantile(values, QUANTILES) if values.size else np.full(len(QUANTILES), np.nan)
        )
        return TokenSummary(
            n_tokens=int(mask.sum()),
            n_undefined=int(mask.sum() - values.size),
            mean=float(values.mean()) if values.size else float("nan"),
            low=low,
            high=high,
            quantiles=tuple(quantiles.tolist()),
        )


@dataclass(frozen=True)
class TokenSummary:
    """Distribution of the correlations of a group of tokens; NaN where none is defined.

    Attributes:
        n_tokens: Number of tokens.
        n_undefined: How many of them have no defined correlation, which the rest is without.
        mean: Mean over tokens.
        low: Low end of its bootstrap interval.
        high: High end of it.
        quantiles: At :data:`QUANTILES`.
    """

    n_tokens: int
    n_undefined: int
    mean: float
    low: float
    high: float
    quantiles: tuple[float, ...]


def correlate_tokens(
    store: AttributionStore,
    settings: Sequence[Setting],
    *,
    absent_is_error: bool = True,
    progress: Progress | None = None,
    words: str | None = None,
) -> list[TokenTable]:
    """Correlate each content token (or word) of a store by itself, reading each file once.

    Args:
        store: Utterances with cross-attention and saliency.
        settings: What is correlated, and how.
        absent_is_error: Whether a target that no utterance has is an error; otherwise it has no
            table, and it is an error that no target is there.
        progress: Called with the number of utterances done and of all.
        words: ``mean`` or ``max``, how the rows of tokens are joined to those of words (see
            :class:`~fbk_xattn.analysis.collecting.UtteranceMaps`), each of which is then a token of
            the table that begins with SentencePiece's mark; by default they are not.

    Returns:
        A table for each setting, in their order.

    Raises:
        InputError: As for :func:`~fbk_xattn.analysis.correlation.correlate_store`, or utterances
            differ in their number of layers.
    """
    collectors = [_TokenCollector(setting, words=words) for setting in settings]
    collect(store, collectors, absent_is_error=absent_is_error, progress=progress, words=words)
    return [collector.table() for collector in collectors if collector.ids]


@dataclass
class _TokenCollector(Collector):
    """Correlations of tokens in one setting, utterance by utterance."""

    words: str | None = None
    tokens: list[str] = field(default_factory=list)
    position: list[NDArray[np.float64]] = field(default_factory=list)
    correlation: list[NDArray[np.float64]] = field(default_factory=list)

    def add(self, attribution: Attribution, maps: UtteranceMaps) -> None:
        """Correlate the tokens of an utterance.

        Raises:
            InputError: It has another number of layers than those before.
        """
        attention = maps.attention(self.setting.normalize)[:, -1]  # (L + 1, N, T')
        saliency = maps.saliency(self.setting)
        compute = coefficient(self.setting.coefficient).compute
        n_tokens = len(saliency)
        values = np.empty((len(attention), n_tokens))
        for token in range(n_tokens):
            values[:, token] = compute(attention[:, token], saliency[token])
        if self.correlation and len(values) != len(self.correlation[0]):
            raise InputError(
                f"utterance {attribution.id!r}: {len(values) - 1} layers, expected "
                f"{len(self.correlation[0]) - 1} as of {self.ids[0]!r}"
            )
        self.tokens.extend(self._names(attribution.tokens[attribution.content]))
        self.position.append((np.arange(n_tokens) + 0.5) / max(n_tokens, 1))
        self.correlation.append(values)

    def _names(self, tokens: Sequence[str]) -> Sequence[str]:
        if self.words is None:
            return tokens
        return [WORD_START + word_text(tokens, word) for word in word_slices(tokens)]

    def table(self) -> TokenTable:
        n_tokens = [values.shape[1] for values in self.correlation]
        return TokenTable(
            setting=self.setting,
            ids=tuple(self.ids),
            utterance=np.repeat(np.arange(len(self.ids)), n_tokens),
            tokens=tuple(self.tokens),
            position=np.concatenate(self.position),
            correlation=np.concatenate(self.correlation, axis=1),
            left_out=dict(self.left_out),
            words=self.words,
            cross_attention=self.cross_attention,
        )


def _length_name(low: int, high: int | None) -> str:
    if high == 0:
        return "word mark alone"
    if low == high:
        return "1 character" if low == 1 else f"{low} characters"
    return f"{low} or more characters" if high is None else f"{low} to {high} characters"
