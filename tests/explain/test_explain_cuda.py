"""Explanations on a CUDA device, against the CPU; skipped where there is none."""

import contextlib
import copy
import dataclasses
import gc

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
    probability_difference,
    token_saliency,
)
from fbk_xattn.models.inference import inference_copy

if not torch.cuda.is_available():
    pytest.skip("no CUDA device", allow_module_level=True)

from fbk_xattn.explain.cuda import divergence

SPES = Explainer("input", SlicPyramid(), MaskSampler(0.5), occlude_input, kl_divergence)
EXPLAINERS = {
    "input": SPES,
    "probability": dataclasses.replace(SPES, scorer=probability_difference),
    "tokens": JointExplainer(SPES, MaskSampler(0.4)),
    "encoder": Explainer(
        "encoder", EncoderSteps(), MaskSampler(0.7), occlude_encoder_output, kl_divergence
    ),
}


@pytest.fixture(autouse=True)
def exact_products():
    """Leave no product to TF32, which has 10 bits of mantissa."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def on_device(utterance):
    tensors = {k: v.cuda() for k, v in vars(utterance).items() if isinstance(v, torch.Tensor)}
    return dataclasses.replace(utterance, **tensors)


@pytest.mark.parametrize("name", EXPLAINERS)
@pytest.mark.parametrize("at_a_time", [7, 64, 1000])
def test_masks_are_those_of_the_cpu_and_maps_within_rounding(name, at_a_time):
    model, _, _ = published.load()
    utterance = published.utterance_of(0)
    theirs = EXPLAINERS[name].explain(model, utterance, 100, 5, 50)
    ours = EXPLAINERS[name].explain(
        copy.deepcopy(model).cuda(), on_device(utterance), 100, 5, at_a_time
    )
    for here, there in zip(ours, theirs, strict=True):
        assert np.array_equal(here.labels, there.labels)
        assert np.array_equal(here.denominator, there.denominator)
        assert here.numerator.dtype == np.float32
        np.testing.assert_allclose(here.numerator, there.numerator, rtol=1e-3, atol=1e-3)
    if name == "tokens":
        assert all(
            np.array_equal(here.token_denominator, there.token_denominator)
            for here, there in zip(ours, theirs, strict=True)
        )
        np.testing.assert_allclose(
            token_saliency(ours), token_saliency(theirs), rtol=1e-3, atol=1e-4
        )


def test_divergence_of_more_logits_than_32_bits_count():
    size, symbols = (3, 50), 1 << 30  # the third token begins at number 2^31
    generator = torch.Generator().manual_seed(1)
    log_p = torch.randn(size, generator=generator).log_softmax(dim=-1)
    few = torch.randn(1, *size, generator=generator)
    storage = torch.empty(2 * symbols + size[1], dtype=torch.float16, device="cuda")
    logits = storage.as_strided((1, *size), (size[1], symbols, 1))
    logits.copy_(few)
    log_q = logits.float().cpu().log_softmax(dim=-1)
    expected = (log_p.exp() * (log_p - log_q)).sum(dim=-1)
    torch.testing.assert_close(divergence(log_p.cuda(), logits).cpu(), expected)


@contextlib.contextmanager
def no_more_memory_than(n_bytes):
    """Leave so much to the process; the device answers a request for more as if it were full."""
    _, total = torch.cuda.mem_get_info()
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(n_bytes / total)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


@pytest.mark.parametrize("name", EXPLAINERS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(None, 1e-3), (torch.float16, 1e-2)])
def test_a_full_device_halves_the_batch_and_changes_no_sum(name, dtype, tolerance, caplog):
    # Before anything is there: what would lie in a large block of an earlier test would keep it.
    gc.collect()
    torch.cuda.empty_cache()
    model = copy.deepcopy(published.load()[0]).cuda()
    if dtype is not None:
        model = inference_copy(model, dtype)
    utterance = on_device(published.utterance_of(0))
    caplog.clear()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    theirs = EXPLAINERS[name].explain(model, utterance, 6000, 5, 100)
    assert not caplog.records
    with no_more_memory_than(torch.cuda.max_memory_reserved()):
        ours = EXPLAINERS[name].explain(model, utterance, 6000, 5, 6000)
    share = 6000 // len(ours)
    assert caplog.messages[0] == (
        f"no memory on the device for {share} occluded copies at once, going on with {share // 2}"
    )
    for here, there in zip(ours, theirs, strict=True):
        assert np.array_equal(here.denominator, there.denominator)
        np.testing.assert_allclose(
            here.numerator, there.numerator, rtol=tolerance, atol=tolerance * there.numerator.max()
        )
