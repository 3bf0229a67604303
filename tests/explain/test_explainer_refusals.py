"""What no explanation can be made of is refused before the model runs."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from golden import published

from fbk_xattn.explain import (
    EncoderSteps,
    Explainer,
    JointExplainer,
    MaskSampler,
    SlicPyramid,
    kl_divergence,
    occlude_encoder_output,
    occlude_input,
)

ANY = {
    "input": Explainer("input", SlicPyramid(), MaskSampler(0.5), occlude_input, kl_divergence),
    "encoder": Explainer(
        "encoder", EncoderSteps(), MaskSampler(0.7), occlude_encoder_output, kl_divergence
    ),
}


@pytest.mark.parametrize("target", ["input", "encoder"])
def test_a_model_in_training_mode_is_refused_and_left_alone(target):
    model = copy.deepcopy(published.load()[0]).train()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=r"training mode, expected model\.eval\(\)"):
        ANY[target].explain(model, published.utterance_of(0), 4, 1, 4)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("n_masks", "perturbations_per_eval", "message"),
    [(0, 4, "n_masks 0"), (-5, 4, "n_masks -5"), (4, 0, "_eval 0"), (4, -1, "_eval -1")],
)
def test_numbers_that_explain_nothing_are_refused(n_masks, perturbations_per_eval, message):
    model, utterance = published.load()[0], published.utterance_of(0)
    with pytest.raises(ValueError, match=f"{message}: expected at least 1"):
        ANY["encoder"].explain(model, utterance, n_masks, 1, perturbations_per_eval)


@pytest.mark.parametrize(
    ("segmenter", "message"),
    [
        (lambda _: [], "no level"),
        (lambda u: [np.zeros(tuple(u.features.t().shape), int)], r"labels of level 0: \(\d+"),
        (lambda u: [np.full(tuple(u.features.shape), -1)], "expected segments from 0 on"),
        (lambda u: [torch.zeros(u.features.shape, dtype=torch.int64)], "a numpy array of integers"),
        (lambda u: [np.zeros(tuple(u.features.shape))], "a numpy array of integers"),
    ],
)
@pytest.mark.parametrize("joint", [False, True])
def test_labels_that_are_none_are_refused(segmenter, message, joint):
    explainer = replace(ANY["input"], segmenter=segmenter)
    if joint:
        explainer = JointExplainer(explainer, MaskSampler(0.5))
    with pytest.raises(ValueError, match=message):
        explainer.explain(published.load()[0], published.utterance_of(0), 4, 1, 4)


def test_small_types_of_labels_have_room_for_tokens():
    utterance = published.utterance_of(0)
    labels = np.arange(utterance.features.numel(), dtype=np.int64) % 256
    small, large = (
        JointExplainer(
            replace(
                ANY["input"],
                segmenter=lambda u, kind=kind: [labels.astype(kind).reshape(u.features.shape)],
            ),
            MaskSampler(0.5),
        ).explain(published.load()[0], utterance, 4, 1, 4)
        for kind in (np.uint8, np.int64)
    )
    np.testing.assert_array_equal(small[0].numerator, large[0].numerator)
    np.testing.assert_array_equal(small[0].token_numerator, large[0].token_numerator)


def test_masks_take_integers_of_numpy():
    key, sampler = (1, "a", "input", 0), MaskSampler(0.5)
    drawn = sampler.occluded(key, np.int32(2), np.int64(5), np.int32(7))
    np.testing.assert_array_equal(drawn, sampler.occluded(key, 2, 5, 7))
