import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from golden import published
from scipy.special import log_softmax

from fbk_xattn.explain import (
    EncoderSteps,
    Explainer,
    JointExplainer,
    MaskSampler,
    SlicPyramid,
    kl_divergence,
    occlude_encoder_output,
    occlude_input,
    token_saliency,
)
from fbk_xattn.explain.explainer import ahead
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


class Cramped:
    """An occluder on a device with room for few copies, after some that went well."""

    def __init__(self, occluder, room, roomy_passes=0):
        self.occluder, self.room, self.roomy_passes = occluder, room, roomy_passes
        self.passed = []

    def __call__(self, model, utterance, occluded):
        logits = self.occluder(model, utterance, occluded)
        if len(self.passed) >= self.roomy_passes and len(occluded) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        self.passed.append(len(occluded))
        return logits


@pytest.mark.parametrize("target", EXPLAINERS)
@pytest.mark.parametrize("joint", [False, True])
def test_a_lack_of_memory_in_the_middle_changes_no_sum(target, joint):
    model, _, _ = published.load()
    utterance = published.utterance_of(0)

    def explain(explainer, progress=None):
        if joint:
            explainer = JointExplainer(explainer, MaskSampler(0.3))
        return explainer.explain(model, utterance, 23, 5, 8, progress)

    done, cramped = [], Cramped(EXPLAINERS[target].occluder, room=3, roomy_passes=1)
    ours = explain(replace(EXPLAINERS[target], occluder=cramped), done.append)
    theirs = explain(EXPLAINERS[target])
    for here, there in zip(ours, theirs, strict=True):
        assert np.array_equal(here.denominator, there.denominator)
        np.testing.assert_allclose(here.numerator, there.numerator, atol=2e-5, rtol=1e-5)
    if joint:
        np.testing.assert_allclose(token_saliency(ours), token_saliency(theirs), atol=1e-5)
    assert cramped.passed[0] == 8
    assert set(cramped.passed[1:]) == {1, 2}
    assert done == cramped.passed
    assert sum(done) == 23


def test_no_room_for_one_copy_is_an_error_that_leaves_no_hook():
    model, _, _ = published.load()
    for explainer in EXPLAINERS.values():
        cramped = replace(explainer, occluder=Cramped(explainer.occluder, room=0))
        with pytest.raises(torch.OutOfMemoryError):
            JointExplainer(cramped, MaskSampler(0.3)).explain(
                model, published.utterance_of(0), 4, 5, 4
            )
    for module in model.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks


@pytest.mark.parametrize("n", [0, 1, 2, 7])
def test_stretches_are_drawn_once_each_in_order(n):
    drawn = []

    def draw(level, start, stop):
        drawn.append((level, start, stop))
        return torch.tensor([level, start, stop])

    stretches = [(number % 2, number, number + 3) for number in range(n)]
    given = [tuple(masks.tolist()) for masks in ahead(draw, stretches)]
    assert given == drawn == stretches


def test_the_next_stretch_is_drawn_while_one_is_worked_on_and_no_more():
    drawn = [threading.Event() for _ in range(4)]

    def draw(level, start, stop):  # noqa: ARG001 - a stretch
        drawn[start].set()
        return torch.tensor(start)

    for number, _ in enumerate(ahead(draw, [(0, start, start + 1) for start in range(4)])):
        if number < 3:
            assert drawn[number + 1].wait(timeout=30)
        assert not any(event.is_set() for event in drawn[number + 2 :])


def test_an_error_of_a_stretch_comes_when_it_is_its_turn():
    def draw(level, start, stop):  # noqa: ARG001 - a stretch
        if start == 1:
            raise MemoryError("masks")
        return torch.tensor(start)

    stretches = ahead(draw, [(0, start, start + 1) for start in range(3)])
    assert next(stretches).item() == 0
    with pytest.raises(MemoryError, match="masks"):
        next(stretches)


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


def test_occluded_copies_go_without_attention_that_is_planned_for_each_shape():
    model, _, _ = published.load()
    allowed = []

    def recording(*arguments):
        allowed.append(torch.backends.cuda.cudnn_sdp_enabled())
        return occlude_input(*arguments)

    before = torch.backends.cuda.cudnn_sdp_enabled()
    spes = replace(EXPLAINERS["input"], occluder=recording)
    spes.explain(model, published.utterance_of(0), 5, 1, 2)
    assert set(allowed) == {False}
    assert torch.backends.cuda.cudnn_sdp_enabled() == before


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
    levels = replay.explain(published.load()[0], hypothesis_of_utterance_0, len(masks), 0, 7)
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
