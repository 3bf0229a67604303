"""What one utterance's file of an attribution store holds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class SegmentLevel:
    """Occlusion scores accumulated over one segmentation of the input.

    Attributes:
        labels: ``(T, F)`` integers, the segment of each cell, from 0 to ``n_segments - 1``.
        numerator: ``(S, n_segments)``, for each token the sum of the scores of the masks that
            occluded the segment.
        denominator: ``(n_segments,)``, how many masks occluded the segment.
    """

    labels: NDArray[np.unsignedinteger]
    numerator: FloatArray
    denominator: NDArray[np.int32]


@dataclass(frozen=True)
class SegmentSaliency:
    """Input saliency in compact form: one :class:`SegmentLevel` for each segmentation."""

    levels: tuple[SegmentLevel, ...]

    def dense(self, tokens: slice = slice(None)) -> FloatArray:
        """Return the saliency map ``(S, T, F)``.

        The mean score of the masks that occluded a cell, over all levels together: the sum of the
        numerators divided by the sum of the denominators (SPES, Fucci et al. 2024). Cells that no
        mask occluded are 0.

        Args:
            tokens: Rows to return, such as :attr:`Attribution.content`; all of them by default.
        """
        shape = self.levels[0].labels.shape
        # Tokens come last, so that a segment's scores are copied to its cells in one piece.
        n_tokens = self.levels[0].numerator[tokens].shape[0]
        sums = np.zeros((*shape, n_tokens), dtype=np.float64)
        denominator = np.zeros(shape, dtype=np.int64)
        for level in self.levels:
            scores = np.ascontiguousarray(level.numerator[tokens].T)
            sums += np.take(scores, level.labels, axis=0)
            denominator += level.denominator[level.labels]
        sums /= np.maximum(denominator, 1)[..., np.newaxis]
        sums[denominator == 0] = 0.0
        return np.moveaxis(sums.astype(np.float32), -1, 0)


@dataclass(frozen=True)
class Attribution:
    """One explained utterance.

    ``S`` is the number of hypothesis tokens, ``T`` of feature frames, ``F`` of mel bins, ``T'`` of
    encoder steps, ``L`` of decoder layers and ``H`` of heads. A part that the run was not asked for
    is ``None``.

    Attributes:
        id: Utterance id of the manifest.
        speaker: Speaker, or an empty string.
        src_lang: Language spoken.
        tgt_lang: Language of the hypothesis.
        src_text: Transcript of the manifest.
        tgt_text: Reference of the manifest.
        hypothesis: Detokenised text of the hypothesis.
        tokens: The ``S`` hypothesis tokens: language tag (``n_prefix`` of them), subwords, eos.
        token_ids: ``(S,)``, their indices in the target dictionary.
        positional_scores: ``(S,)``, natural-log probability of each token, from beam search.
        score: Score of the hypothesis, as beam search ranked it.
        n_prefix: Number of forced tokens at the beginning (the language tag): 0 or 1.
        frames_per_step: Feature frames that one encoder step covers (the subsampling factor): step
            ``t'`` covers the frames ``[t' * frames_per_step, (t' + 1) * frames_per_step)``, cut at
            ``T`` (so the last one may cover fewer).
        fbank: ``(T, F)``, the features the model was given (after utterance CMVN).
        cross_attention: ``(L, H, S, T')``, weights whose rows sum to 1, or with
            ``--cross-attention norms`` the norms of weighted values, 0 or more. The store's
            parameters say which.
        input_saliency: Saliency of the input features, its dense map is ``(S, T, F)``.
        encoder_saliency: ``(S, T')``, saliency of the encoder output.
        token_saliency: ``(S, S)``, saliency of the previous tokens: row i of token i, column j of
            the j-th token that the decoder is given (eos, then all tokens but the last). 0 for
            j > i, as token i is predicted without those.
    """

    id: str
    speaker: str
    src_lang: str
    tgt_lang: str
    src_text: str
    tgt_text: str
    hypothesis: str
    tokens: tuple[str, ...]
    token_ids: NDArray[np.int64]
    positional_scores: FloatArray
    score: float
    n_prefix: int
    frames_per_step: int
    fbank: FloatArray
    cross_attention: FloatArray | None = None
    input_saliency: SegmentSaliency | None = None
    encoder_saliency: FloatArray | None = None
    token_saliency: FloatArray | None = None

    @property
    def content(self) -> slice:
        """Rows of the text itself: without the language tag and eos (design: analysis rows)."""
        return slice(self.n_prefix, len(self.tokens) - 1)
