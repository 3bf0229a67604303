"""Hooks around the cross-attention of any decoder."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fbk_xattn.errors import InputError
from fbk_xattn.generation.hooks import CrossAttentionHooks


class Attention(nn.Module):
    def forward(self, x, *, scale=1.0):
        return x * scale


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder_attn = Attention()


class Decoder(nn.Module):
    def __init__(self, n_layers=2):
        super().__init__()
        self.layers = nn.ModuleList(Layer() for _ in range(n_layers))

    def forward(self, x):
        for layer in self.layers:
            x = layer.encoder_attn(x, scale=3.0)
        return x


class Scaled(CrossAttentionHooks):
    """Scales by 2 instead, and adds 10."""

    def before(self, module, kwargs):
        assert module in self.modules
        return {**kwargs, "scale": kwargs["scale"] - 1.0}

    def after(self, module, output):
        assert module in self.modules
        return output + 10


class Watched(CrossAttentionHooks):
    """Changes nothing."""

    def before(self, module, kwargs):  # noqa: ARG002 - a hook's signature
        return kwargs

    def after(self, module, output):
        pass


def run(decoder):
    return decoder(torch.tensor(1.0)).item()


def test_inputs_and_outputs_of_every_layer_are_replaced():
    decoder = Decoder()
    with Scaled(decoder):
        assert run(decoder) == (1 * 2 + 10) * 2 + 10
    assert run(decoder) == 9


def test_an_output_is_kept_where_none_is_returned():
    decoder = Decoder()
    with Watched(decoder):
        assert run(decoder) == 9


def test_hooks_may_be_nested_and_used_again():
    decoder = Decoder(n_layers=1)
    scaled = Scaled(decoder)
    for _ in range(2):
        with scaled:
            assert run(decoder) == 1 * 2 + 10
            with Scaled(decoder):
                assert run(decoder) == 1 * 1 + 10 + 10
            assert run(decoder) == 1 * 2 + 10
        assert run(decoder) == 3


def test_hooks_go_when_the_decoder_fails():
    decoder = Decoder()
    with pytest.raises(TypeError), Scaled(decoder):
        decoder("text")
    assert run(decoder) == 9


@pytest.mark.parametrize("decoder", [Decoder(n_layers=0), nn.LSTM(2, 2)])
def test_decoders_without_cross_attention_are_refused(decoder):
    with pytest.raises(InputError, match=f"^{type(decoder).__name__}: no cross-attention in every"):
        Scaled(decoder)
