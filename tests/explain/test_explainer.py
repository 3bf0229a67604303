import numpy as np
import pytest
import torch
from golden import published
from scipy.special import log_softmax

from fbk_xattn.explain import (
    EncoderSteps,
    Explainer,
    MaskSampler,
    SlicPyramid,
    kl_divergence,
    occlude_encoder_output,
    occlude_input,
)
from fbk_xattn.store import SegmentLevel, SegmentSaliency

EXPLAINERS = {
    "input": Explainer(
        "input",
        SlicPyramid(segments_per_second=(30, 400)),
        MaskSampler(0.5),
        occlude_input,
        kl_divergence,
    ),
    "encoder": Explainer(
        "encoder", EncoderSteps(), MaskSampler(0.7), occlude_encoder_output, kl_divergence
    ),
}


def dense(scores):
    levels = tuple(SegmentLevel(s.labels, s.numerator, s.denominator) for s in scores)
    return SegmentSaliency(levels).dense()


@torch.no_grad()
def plain_saliency(explainer, utterance, n_masks, seed):
    """Compute the map as the definition says: one mask after another, cell by cell."""
    model, _, _ = published.load()
    levels = explainer.segmenter(utterance)
    log_p = log_softmax(utterance.logits.double().numpy(), axis=-1)
    shape = levels[0].shape
    numerator = np.zeros((len(log_p), *shape))
    denominator = np.zeros(shape)
    counts = [n_masks // len(levels) + (i < n_masks % len(levels)) for i in range(len(levels))]
    for level, (labels, count) in enumerate(zip(levels, counts, strict=True)):
        key = (seed, utterance.id, explainer.target, level)
        for number in range(count):
            n_segments = int(labels.max()) + 1
            drawn = explainer.sampler.occluded(key, number, number + 1, n_segments)[0]
            hidden = drawn[labels]
            if explainer.target == "input":
                features = np.where(hidden, 0, utterance.features.numpy())[None]
                lengths = torch.tensor([len(features[0])])
                encoder_out = model.encoder(torch.tensor(features), lengths)
            else:
                states = np.where(hidden[:, None], 0, utterance.encoder_out.numpy())[:, None]
                encoder_out = {"encoder_out": [torch.tensor(states)], "encoder_padding_mask": []}
            tokens = utterance.prev_output_tokens[None]
            logits = model.decoder(tokens, encoder_out=encoder_out)[0][0]
            log_q = log_softmax(logits.double().numpy(), axis=-1)
            score = (np.exp(log_p) * (log_p - log_q)).sum(axis=-1)
            numerator += score.reshape(-1, *[1] * len(shape)) * hidden
            denominator += hidden
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator > 0)


@pytest.mark.parametrize("target", EXPLAINERS)
@pytest.mark.parametrize("n_masks", [1, 25])
def test_saliency_is_that_of_the_definition(target, n_masks):
    model, _, _ = published.load()
    explainer, utterance = EXPLAINERS[target], published.utterance_of(0)
    scores = explainer.explain(model, utterance, n_masks, seed=5, perturbations_per_eval=8)
    expected = plain_saliency(explainer, utterance, n_masks, seed=5)
    assert expected.max() > 0.01
    np.testing.assert_allclose(dense(scores), expected, atol=1e-5, rtol=1e-5)
    if n_masks == 1:
        assert (expected[0] == 0).any()  # cells never occluded


@pytest.mark.parametrize("target", EXPLAINERS)
def test_saliency_does_not_depend_on_the_number_of_masks_at_a_time(target):
    model, _, _ = published.load()
    utterance = published.utterance_of(0)

    def explain(at_a_time):
        return EXPLAINERS[target].explain(model, utterance, 22, 5, at_a_time)

    reference = explain(22)
    for at_a_time in (1, 4, 100):
        for ours, theirs in zip(explain(at_a_time), reference, strict=True):
            assert np.array_equal(ours.labels, theirs.labels)
            assert np.array_equal(ours.denominator, theirs.denominator)
            np.testing.assert_allclose(ours.numerator, theirs.numerator, atol=2e-5, rtol=1e-5)


def test_saliency_depends_on_the_seed_and_on_the_utterance_alone():
    model, _, _ = published.load()
    explainer, utterance = EXPLAINERS["encoder"], published.utterance_of(0)

    def explain(seed, utterance=utterance):
        return dense(explainer.explain(model, utterance, 10, seed, 10))

    first = explain(1)
    torch.manual_seed(99)
    np.random.seed(99)  # noqa: NPY002 - that nobody draws from it is what is tested
    assert np.array_equal(explain(1), first)
    assert not np.array_equal(explain(2), first)
    renamed = type(utterance)(**{**vars(utterance), "id": "another"})
    assert not np.array_equal(explain(1, renamed), first)


@pytest.mark.parametrize(("n_masks", "shares"), [(7, [4, 3]), (1, [1, 0]), (16, [8, 8])])
def test_masks_are_spread_over_the_levels_and_progress_counts_them(n_masks, shares):
    model, _, _ = published.load()
    explainer = EXPLAINERS["input"]
    everything = Explainer(
        "input", explainer.segmenter, AllOccluded(), occlude_input, kl_divergence
    )
    done = []
    scores = everything.explain(
        model, published.utterance_of(0), n_masks, 1, perturbations_per_eval=3, progress=done.append
    )
    assert [set(level.denominator.tolist()) for level in scores] == [{n} for n in shares]
    assert sum(done) == n_masks
    assert max(done) <= 3


class AllOccluded:
    """Draws masks that occlude everything."""

    def occluded(self, key, start, stop, n_segments):  # noqa: ARG002 - a sampler's signature
        return np.ones((stop - start, n_segments), dtype=bool)


class Recorded:
    """Draws the masks of the published run; every cell is a segment."""

    def __init__(self, masks):
        self.masks = masks

    def occluded(self, key, start, stop, n_segments):  # noqa: ARG002 - a sampler's signature
        assert n_segments == self.masks[0].size
        return self.masks[start:stop].reshape(stop - start, -1) == 0


def cells(utterance):
    shape = tuple(utterance.features.shape)
    return [np.arange(np.prod(shape), dtype=np.int32).reshape(shape)]


@pytest.fixture(scope="module")
def recorded():
    """Masks (1 = kept), scores and map of the published system."""
    arrays = published.arrays("spes_joint")
    n_cells = int(np.prod(arrays["mask_shape"]))
    n_masks = len(arrays["masks_packed"])
    bits = np.unpackbits(arrays["masks_packed"], axis=1)[:, :n_cells]
    masks = bits.reshape(n_masks, *arrays["fbank"].shape)
    return masks, arrays["scores"], arrays["fbank_heatmap"]


@pytest.fixture(scope="module")
def hypothesis_of_utterance_0():
    return published.utterance_of(0, published.values("hyps_joint")["single"]["0"]["tokens"])


def test_published_scores_accumulate_to_the_published_map(recorded, hypothesis_of_utterance_0):
    masks, scores, heatmap = recorded
    rows = iter(scores)
    replay = Explainer(
        "input",
        cells,
        Recorded(masks),
        lambda _model, _utterance, occluded: occluded,
        lambda _, occluded: torch.tensor(np.stack([next(rows) for _ in occluded])),
    )
    levels = replay.explain(None, hypothesis_of_utterance_0, len(masks), 0, 7)
    np.testing.assert_allclose(dense(levels), heatmap, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_published_masks_give_the_published_scores_and_map(recorded, hypothesis_of_utterance_0):
    masks, scores, heatmap = recorded
    model, _, _ = published.load()
    features = published.arrays("spes_joint")["fbank"]
    np.testing.assert_allclose(hypothesis_of_utterance_0.features, features, atol=1e-5)
    logits = occlude_input(
        model, hypothesis_of_utterance_0, torch.tensor(masks.reshape(len(masks), -1) == 0)
    )
    ours = kl_divergence(hypothesis_of_utterance_0, logits)
    np.testing.assert_allclose(ours, scores, atol=2e-5, rtol=1e-4)
    again = Explainer("input", cells, Recorded(masks), occlude_input, kl_divergence)
    levels = again.explain(model, hypothesis_of_utterance_0, len(masks), 0, 20)
    np.testing.assert_allclose(dense(levels), heatmap, atol=2e-5, rtol=1e-4)
