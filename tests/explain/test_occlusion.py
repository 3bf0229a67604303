import dataclasses
from types import SimpleNamespace

import building
import pytest
import torch
from golden import published

from fbk_xattn.explain import Utterance, occlude_encoder_output, occlude_input


class Spy:
    """A model that keeps what it is given and returns logits that count the decoder's input."""

    def __init__(self):
        self.calls = []
        self.decoder = SpyDecoder(self.calls)

    def encoder(self, src_tokens, src_lengths):
        self.calls.append(("encoder", src_tokens.clone(), src_lengths))
        return {"encoder_out": ["encoded"]}


class SpyDecoder(torch.nn.Module):
    """Its decoder."""

    def __init__(self, calls):
        super().__init__()
        self.calls = calls
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, tokens, encoder_out):
        self.calls.append(("decoder", tokens.clone(), encoder_out))
        return torch.arange(tokens.numel() * 3.0).view(*tokens.shape, 3), {"attn": None}


@pytest.fixture
def utterance():
    generator = torch.Generator().manual_seed(0)
    return Utterance(
        id="a",
        features=torch.randn(4, 3, generator=generator),
        encoder_out=torch.randn(5, 2, generator=generator),
        prev_output_tokens=torch.tensor([2, 7, 8]),
        logits=torch.randn(3, 3, generator=generator),
    )


def random_masks(n, n_cells, probability=0.5):
    return torch.rand(n, n_cells, generator=torch.Generator().manual_seed(1)) < probability


def test_exactly_the_occluded_cells_of_the_input_are_0(utterance):
    spy, occluded = Spy(), random_masks(6, 12)
    before = utterance.features.clone()
    logits = occlude_input(spy, utterance, occluded)
    (_, features, lengths), (_, tokens, encoder_out) = spy.calls
    assert features.shape == (6, 4, 3)
    for mask in range(6):
        for frame in range(4):
            for mel_bin in range(3):
                hidden = occluded[mask, frame * 3 + mel_bin]
                expected = 0 if hidden else before[frame, mel_bin]
                assert features[mask, frame, mel_bin] == expected
    assert torch.equal(utterance.features, before)
    assert lengths.tolist() == [4] * 6
    assert lengths.dtype == torch.long
    assert tokens.tolist() == [[2, 7, 8]] * 6
    assert encoder_out == {"encoder_out": ["encoded"]}
    assert logits.shape == (6, 3, 3)


@torch.no_grad()
def test_occluded_input_equals_the_model_run_on_each_copy_alone():
    model, _, _ = published.load()
    utterance = published.utterance_of(0)
    occluded = random_masks(4, utterance.features.numel())
    logits = occlude_input(model, utterance, occluded)
    for mask, ours in zip(occluded, logits, strict=True):
        features = utterance.features * (~mask).view_as(utterance.features)
        theirs, _ = model(
            features[None], torch.tensor([len(features)]), utterance.prev_output_tokens[None]
        )
        torch.testing.assert_close(ours, theirs[0], atol=1e-5, rtol=1e-5)


def decode_zeroed(decoder, utterance, mask):
    """Run the whole decoder on one explicitly zeroed encoder output."""
    states = (utterance.encoder_out * (~mask)[:, None])[:, None]
    padding = torch.zeros(1, len(states), dtype=torch.bool)
    tokens = utterance.prev_output_tokens[None]
    encoder_out = {"encoder_out": [states], "encoder_padding_mask": [padding]}
    return decoder(tokens, encoder_out=encoder_out)[0][0]


@torch.no_grad()
def test_occluded_encoder_output_equals_the_decoder_run_on_each_copy_alone():
    model, _, _ = published.load()
    utterance = published.utterance_of(1)
    before = utterance.encoder_out.clone()
    occluded = random_masks(5, len(utterance.encoder_out), 0.7)
    # The encoder does not run: there is none.
    logits = occlude_encoder_output(SimpleNamespace(decoder=model.decoder), utterance, occluded)
    for mask, ours in zip(occluded, logits, strict=True):
        theirs = decode_zeroed(model.decoder, utterance, mask)
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    assert torch.equal(utterance.encoder_out, before)


@torch.no_grad()
@pytest.mark.parametrize("biases", ["as they are", "large"])
@pytest.mark.parametrize("all_occluded", [False, True])
def test_biases_of_keys_and_values_stay_when_a_step_is_occluded(utterance, biases, all_occluded):
    torch.manual_seed(0)
    model = building.build(decoder_layers=2).double().eval()
    if biases == "large":
        for layer in model.decoder.layers:
            for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
                torch.nn.init.normal_(getattr(layer.encoder_attn, name).bias)
    utterance = dataclasses.replace(utterance, encoder_out=torch.randn(5, 16).double())
    occluded = torch.ones(3, 5).bool() if all_occluded else random_masks(3, 5)
    logits = occlude_encoder_output(model, utterance, occluded)
    for mask, ours in zip(occluded, logits, strict=True):
        theirs = decode_zeroed(model.decoder, utterance, mask)
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-6)


@torch.no_grad()
def test_the_decoder_is_as_before_when_occlusion_is_over():
    model, _, _ = published.load()
    utterance = published.utterance_of(1)
    nothing = torch.zeros(len(utterance.encoder_out)).bool()
    before = decode_zeroed(model.decoder, utterance, nothing)
    with pytest.raises(RuntimeError):
        occlude_encoder_output(model, utterance, torch.zeros(2, 3).bool())  # too few steps
    occlude_encoder_output(model, utterance, random_masks(2, len(nothing)))
    assert torch.equal(decode_zeroed(model.decoder, utterance, nothing), before)


@torch.no_grad()
@pytest.mark.parametrize(
    ("occlude", "cells"), [(occlude_input, 166 * 80), (occlude_encoder_output, 42)]
)
def test_nothing_occluded_changes_nothing_and_all_occluded_hides_the_speech(occlude, cells):
    model, _, _ = published.load()
    utterance = published.utterance_of(0)
    occluded = torch.stack([torch.zeros(cells), torch.ones(cells)]).bool()
    untouched, hidden = occlude(model, utterance, occluded)
    torch.testing.assert_close(untouched, utterance.logits, atol=1e-5, rtol=1e-5)
    blank = SimpleNamespace(
        features=torch.zeros_like(utterance.features),
        encoder_out=torch.zeros_like(utterance.encoder_out),
        prev_output_tokens=utterance.prev_output_tokens,
    )
    torch.testing.assert_close(hidden, occlude(model, blank, occluded)[0], atol=1e-5, rtol=1e-5)
    assert (hidden - utterance.logits).abs().max() > 0.1
