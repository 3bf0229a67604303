import dataclasses

import numpy as np
import pytest
import torch
from golden import published
from scipy.special import log_softmax
from torch.nn import functional

from fbk_xattn.explain import (
    EncoderSteps,
    Explainer,
    Frames,
    JointExplainer,
    JointScores,
    MaskSampler,
    kl_divergence,
    occlude_encoder_output,
    occlude_input,
    token_saliency,
)
from fbk_xattn.explain.masks import share
from fbk_xattn.explain.previous_tokens import OccludedTokens
from fbk_xattn.explain.segmentation import Bands


def two_levels(utterance):
    return [*Frames()(utterance), *Bands()(utterance)]


EXPLAINERS = {
    "input": Explainer("input", two_levels, MaskSampler(0.5), occlude_input, kl_divergence),
    "encoder": Explainer(
        "encoder", EncoderSteps(), MaskSampler(0.7), occlude_encoder_output, kl_divergence
    ),
}


@pytest.fixture(params=EXPLAINERS)
def joint(request):
    return JointExplainer(EXPLAINERS[request.param], MaskSampler(0.4))


def tokens_occluded(joint, utterance, level, count):
    """Return the ``(count, S)`` masks of the tokens."""
    key = (5, utterance.id, joint.target, level, "previous tokens")
    return joint.token_sampler.occluded(key, 0, count, len(utterance.prev_output_tokens))


@torch.no_grad()
def decode(decoder, tokens, encoder_out, occluded):
    """Run the decoder on one copy with embeddings zeroed by hand, positions kept."""
    embedded = decoder.embed_scale * decoder.embed_tokens(tokens) * (~occluded)[:, None]
    x = (embedded + decoder.embed_positions(tokens[None])[0])[:, None]
    future = torch.full((len(x), len(x)), -torch.inf).triu(1)
    for layer in decoder.layers:
        x = layer(x, encoder_out, None, self_attn_mask=future)[0]
    return functional.linear(decoder.layer_norm(x)[:, 0], decoder.output_projection.weight)


@torch.no_grad()
def plain_saliency(joint, utterance, n_masks):
    """Compute the map of the tokens as the definition says, one mask after another."""
    model, _, _ = published.load()
    explainer = joint.explainer
    log_p = log_softmax(utterance.logits.double().numpy(), axis=-1)
    S = len(log_p)
    numerator, denominator = np.zeros((S, S)), np.zeros(S)
    levels = explainer.segmenter(utterance)
    for level, (labels, count) in enumerate(zip(levels, share(n_masks, len(levels)), strict=True)):
        key = (5, utterance.id, explainer.target, level)
        tokens = tokens_occluded(joint, utterance, level, count)
        speech = explainer.sampler.occluded(key, 0, count, int(labels.max()) + 1)
        for hidden, of_speech in zip(tokens, speech, strict=True):
            kept = torch.tensor(~of_speech[labels])
            if explainer.target == "input":
                features = (utterance.features * kept)[None]
                states = model.encoder(features, torch.tensor([features.shape[1]]))
                states = states["encoder_out"][0]
            else:
                states = (utterance.encoder_out * kept[:, None])[:, None]
            logits = decode(
                model.decoder, utterance.prev_output_tokens, states, torch.tensor(hidden)
            )
            log_q = log_softmax(logits.double().numpy(), axis=-1)
            score = (np.exp(log_p) * (log_p - log_q)).sum(axis=-1)
            numerator += score[:, None] * hidden
            denominator += hidden
    return np.tril(numerator / np.maximum(denominator, 1))


@pytest.mark.parametrize("n_masks", [1, 12])
def test_token_saliency_is_that_of_the_definition(joint, n_masks):
    model, _, _ = published.load()
    utterance = published.utterance_of(0)
    scores = joint.explain(model, utterance, n_masks, 5, perturbations_per_eval=5)
    ours = token_saliency(scores)
    S = len(utterance.prev_output_tokens)
    assert (ours.shape, ours.dtype) == ((S, S), np.float32)
    assert (ours[np.triu_indices(S, 1)] == 0).all()
    assert ours.max() > 0.01
    expected = plain_saliency(joint, utterance, n_masks)
    np.testing.assert_allclose(ours, expected, atol=1e-5, rtol=1e-5)


def test_speech_is_occluded_as_without_tokens(joint):
    model, _, _ = published.load()
    utterance = published.utterance_of(0)
    alone = joint.explainer.explain(model, utterance, 9, 5, 4)
    both = joint.explain(model, utterance, 9, 5, 4)
    for ours, theirs in zip(both, alone, strict=True):
        assert isinstance(ours, JointScores)
        assert np.array_equal(ours.labels, theirs.labels)
        assert np.array_equal(ours.denominator, theirs.denominator)
        assert ours.numerator.shape == theirs.numerator.shape
        assert not np.allclose(ours.numerator, theirs.numerator, atol=1e-3)  # tokens miss too
    assert token_saliency(alone) is None


def test_masks_of_tokens_are_independent_of_those_of_the_speech():
    # With as many segments as tokens and the same probability, the same stream would show.
    sampler = MaskSampler(0.5)
    key = (5, "a", "input", 0)
    speech = sampler.occluded(key, 0, 400, 50)
    tokens = sampler.occluded((*key, "previous tokens"), 0, 400, 50)
    assert abs((speech == tokens).mean() - 0.5) < 0.03


def test_scores_do_not_depend_on_the_number_of_masks_at_a_time(joint):
    model, _, _ = published.load()
    utterance = published.utterance_of(0)
    reference = joint.explain(model, utterance, 9, 5, 9)
    for at_a_time in (1, 4):
        again = joint.explain(model, utterance, 9, 5, at_a_time)
        for ours, theirs in zip(again, reference, strict=True):
            assert np.array_equal(ours.token_denominator, theirs.token_denominator)
            np.testing.assert_allclose(
                ours.token_numerator, theirs.token_numerator, atol=2e-5, rtol=1e-5
            )


@torch.no_grad()
def test_no_token_occluded_changes_nothing():
    model, _, _ = published.load()
    utterance = published.utterance_of(0)
    tokens = utterance.prev_output_tokens[None]
    states = {"encoder_out": [utterance.encoder_out[:, None]], "encoder_padding_mask": []}
    with OccludedTokens(model.decoder, torch.zeros(tokens.shape).bool()):
        logits = model.decoder(tokens, encoder_out=states)[0][0]
    torch.testing.assert_close(logits, utterance.logits, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_token_is_seen_by_none_before_it():
    model, _, _ = published.load()
    utterance = published.utterance_of(0)
    tokens = utterance.prev_output_tokens[None]
    states = {"encoder_out": [utterance.encoder_out[:, None]], "encoder_padding_mask": []}
    occluded = torch.zeros(tokens.shape).bool()
    occluded[0, 4] = True
    with OccludedTokens(model.decoder, occluded):
        logits = model.decoder(tokens, encoder_out=states)[0][0]
    changed = (logits - utterance.logits).abs().amax(dim=-1)
    assert changed[:4].max() < 1e-5
    assert changed[4:].min() > 1e-3


@torch.no_grad()
@pytest.mark.parametrize("error", [None, RuntimeError])
def test_the_decoder_is_as_before_when_occlusion_is_over(error):
    model, _, _ = published.load()
    utterance = published.utterance_of(0)
    before = dict(model.decoder.embed_tokens._forward_hooks)

    def occluder(*_):
        if error is not None:
            raise error("out of memory")
        return utterance.logits[None].expand(2, -1, -1)

    explainer = dataclasses.replace(EXPLAINERS["input"], occluder=occluder)
    joint = JointExplainer(explainer, MaskSampler(1))
    if error is None:
        joint.explain(model, utterance, 4, 5, 2)
    else:
        with pytest.raises(error):
            joint.explain(model, utterance, 4, 5, 2)
    assert dict(model.decoder.embed_tokens._forward_hooks) == before


@torch.no_grad()
def test_only_as_many_tokens_as_are_occluded_may_be_embedded():
    model, _, _ = published.load()
    tokens = published.utterance_of(0).prev_output_tokens[None]
    with (
        pytest.raises(RuntimeError, match=r"shape \(1, 10\) were embedded, expected \(2, 10\)"),
        OccludedTokens(model.decoder, torch.zeros(2, 10).bool()),
    ):
        model.decoder.embed_tokens(tokens)


def test_tokens_never_occluded_are_0():
    numerator = np.arange(9, dtype=np.float32).reshape(3, 3)
    scores = JointScores(
        labels=np.zeros((1, 1), np.int32),
        numerator=np.zeros((3, 1), np.float32),
        denominator=np.zeros(1, np.int32),
        token_numerator=numerator,
        token_denominator=np.array([2, 0, 4], np.int32),
    )
    expected = [[0, 0, 0], [1.5, 0, 0], [3, 0, 2]]
    assert np.array_equal(token_saliency([scores]), expected)
    # Levels count by their masks.
    assert np.array_equal(token_saliency([scores, scores]), expected)
