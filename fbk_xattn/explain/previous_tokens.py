"""Occlusion of previous tokens together with that of the speech."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from types import TracebackType

import numpy as np
from fairseq.models import FairseqDecoder, FairseqEncoderDecoderModel
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from fbk_xattn.explain.explainer import Explainer, LevelScores, checked
from fbk_xattn.explain.masks import Sampler
from fbk_xattn.explain.occlusion import Occluder
from fbk_xattn.explain.segmentation import Labels
from fbk_xattn.explain.utterance import Utterance


@dataclass(frozen=True)
class JointScores(LevelScores):
    """Scores of one segmentation, and of the tokens occluded with it.

    Attributes:
        token_numerator: ``(S, S)``, for each token (row) the sum of its scores under the masks that
            occluded a token (column) of the decoder's input.
        token_denominator: ``(S,)``, number of masks that occluded a token of the decoder's input.
    """

    token_numerator: NDArray[np.float32]
    token_denominator: NDArray[np.int32]


@dataclass(frozen=True)
class JointExplainer:
    """An attribution method that also occludes each token of the decoder's input at random.

    The tokens (``prev_output_tokens``: eos, then the hypothesis without its eos) are further
    segments of every mask, with a probability and a stream of random numbers of their own: which
    parts of the speech a mask occludes is as without them. Their scores are those of the speech, so
    one pass of the model explains both (the "discrete" target occlusion of the implementation of
    SPES, Fucci et al. 2024, arXiv:2411.01710).

    Attributes:
        explainer: Of the speech.
        token_sampler: Draws which tokens a mask occludes.

    Example:
        >>> from fbk_xattn.explain import (Explainer, JointExplainer, MaskSampler, SlicPyramid,
        ...     kl_divergence, occlude_input)
        >>> spes = Explainer(
        ...     "input", SlicPyramid(), MaskSampler(0.5), occlude_input, kl_divergence)
        >>> JointExplainer(spes, MaskSampler(0.3)).target
        'input'
    """

    explainer: Explainer
    token_sampler: Sampler

    @property
    def target(self) -> str:
        """What part of the speech is occluded (``input``, ``encoder``)."""
        return self.explainer.target

    def explain(
        self,
        model: FairseqEncoderDecoderModel,
        utterance: Utterance,
        n_masks: int,
        seed: int,
        perturbations_per_eval: int,
        progress: Callable[[int], None] | None = None,
    ) -> list[LevelScores]:
        """Return the scores of each level, all of them :class:`JointScores`.

        See :meth:`Explainer.explain`; the decoder has an ``embed_tokens``, as fairseq's have.
        """
        n_tokens = len(utterance.prev_output_tokens)
        levels = checked(self.explainer.segmenter(utterance), utterance)
        joint = replace(
            self.explainer,
            segmenter=lambda _: [_with_tokens(labels, n_tokens) for labels in levels],
            sampler=_JointSampler(self.explainer.sampler, self.token_sampler, n_tokens),
            occluder=_JointOccluder(self.explainer.occluder, n_tokens),
        )
        scores = joint.explain(model, utterance, n_masks, seed, perturbations_per_eval, progress)
        return [
            JointScores(
                labels,
                both.numerator[:, :-n_tokens],
                both.denominator[:-n_tokens],
                both.numerator[:, -n_tokens:],
                both.denominator[-n_tokens:],
            )
            for labels, both in zip(levels, scores, strict=True)
        ]


def token_saliency(scores: Sequence[LevelScores]) -> NDArray[np.float32] | None:
    """Return the saliency of the previous tokens from the scores of a :class:`JointExplainer`.

    ``H[i, j]`` is the mean score of token ``i`` under the masks that occluded token ``j`` of the
    decoder's input: ``sum_m score_{i,m} (1 - mask_m[j]) / sum_m (1 - mask_m[j])``.

    Returns:
        ``(S, S)``, 0 for ``j > i``, which token ``i`` is predicted without, and where no mask
        occluded the token; ``None`` if previous tokens were not occluded.

    Example:
        >>> import numpy as np
        >>> level = JointScores(
        ...     labels=np.zeros((8, 80), int), numerator=np.ones((2, 1)), denominator=np.ones(1),
        ...     token_numerator=np.array([[3.0, 5.0], [4.0, 6.0]]),
        ...     token_denominator=np.array([2, 3]))
        >>> token_saliency([level])
        array([[1.5, 0. ],
               [2. , 2. ]], dtype=float32)
    """
    joint = [level for level in scores if isinstance(level, JointScores)]
    if not joint:
        return None
    numerator = np.sum([level.token_numerator for level in joint], axis=0, dtype=np.float64)
    denominator = np.sum([level.token_denominator for level in joint], axis=0, dtype=np.int64)
    saliency = np.zeros_like(numerator)
    np.divide(numerator, denominator, out=saliency, where=denominator > 0)
    return np.tril(saliency).astype(np.float32)


class OccludedTokens:
    """Context manager in which a decoder is given tokens with embeddings of 0.

    The token embedding is 0, before the positional embedding is added: the decoder knows that there
    was a token, and not which. A hook on ``decoder.embed_tokens`` does so.
    """

    def __init__(self, decoder: FairseqDecoder, occluded: Tensor) -> None:
        """Prepare.

        Args:
            decoder: A fairseq decoder with ``embed_tokens``.
            occluded: ``(n, S)`` booleans, true where the token of a copy is occluded.
        """
        self._embedding: nn.Module = decoder.embed_tokens
        self._occluded = occluded
        self._handle: RemovableHandle | None = None

    def __enter__(self) -> OccludedTokens:
        """Attach the hook."""
        self._handle = self._embedding.register_forward_hook(self._occlude)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Remove the hook."""
        if self._handle is not None:
            self._handle.remove()

    def _occlude(
        self,
        module: nn.Module,  # noqa: ARG002 - torch's signature
        inputs: tuple[Tensor, ...],  # noqa: ARG002
        embedded: Tensor,
    ) -> Tensor:
        if embedded.shape[:-1] != self._occluded.shape:
            raise RuntimeError(
                f"tokens of the shape {tuple(embedded.shape[:-1])} were embedded, expected "
                f"{tuple(self._occluded.shape)}, as many as are occluded or not"
            )
        return embedded.masked_fill(self._occluded.unsqueeze(-1), 0.0)


def _with_tokens(labels: Labels, n_tokens: int) -> Labels:
    """Return the labels of all cells in a row, and of each token as a segment after them."""
    # Small types of labels have no room for the tokens.
    tokens = int(labels.max()) + 1 + np.arange(n_tokens, dtype=np.int32)
    return np.concatenate([labels.reshape(-1).astype(np.int32), tokens])


@dataclass(frozen=True)
class _JointSampler:
    """Draws the segments of the speech and, after them, the tokens."""

    speech: Sampler
    tokens: Sampler
    n_tokens: int

    def occluded(
        self, key: tuple[object, ...], start: int, stop: int, n_segments: int
    ) -> NDArray[np.bool_]:
        speech = self.speech.occluded(key, start, stop, n_segments - self.n_tokens)
        tokens = self.tokens.occluded((*key, "previous tokens"), start, stop, self.n_tokens)
        return np.concatenate([speech, tokens], axis=1)


@dataclass(frozen=True)
class _JointOccluder:
    """Occludes tokens, the last cells, while another occluder occludes the speech."""

    speech: Occluder
    n_tokens: int

    def __call__(
        self, model: FairseqEncoderDecoderModel, utterance: Utterance, occluded: Tensor
    ) -> Tensor:
        with OccludedTokens(model.decoder, occluded[:, -self.n_tokens :]):
            return self.speech(model, utterance, occluded[:, : -self.n_tokens])
