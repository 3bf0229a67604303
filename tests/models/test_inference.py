"""The copy for inference gives what the model gives."""

from __future__ import annotations

import building
import pytest
import torch

from fbk_xattn.models.inference import AlignedLinear, CrossAttention, inference_copy


@pytest.fixture
def model():
    torch.manual_seed(0)
    return building.build().eval()


def logits(model, features, tokens):
    with torch.no_grad():
        lengths = torch.full((len(features),), features.shape[1])
        encoder_out = model.encoder(src_tokens=features, src_lengths=lengths)
        return model.decoder(tokens, encoder_out=encoder_out)[0]


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.1), (torch.float64, 1e-5)]
)
def test_gives_the_logits_of_the_model(model, dtype, tolerance):
    features, tokens = torch.randn(3, 50, 6), torch.randint(4, 18, (3, 5))
    expected = logits(model, features, tokens)
    copy = inference_copy(model, dtype)
    assert isinstance(copy.decoder.layers[0].encoder_attn, CrossAttention)
    result = logits(copy, features.to(dtype), tokens)
    assert result.dtype == (torch.float32 if dtype == torch.bfloat16 else dtype)
    torch.testing.assert_close(result.float(), expected, atol=tolerance, rtol=0)


def test_logits_in_bf16_are_not_rounded_to_bf16(model):
    features, tokens = torch.randn(3, 50, 6), torch.randint(4, 18, (3, 5))
    with torch.no_grad():
        model.decoder.layer_norm.weight.add_(0.003)  # what bf16 has no place for beside 1
        model.decoder.output_projection.weight.mul_(20)
    result = logits(inference_copy(model, torch.bfloat16), features.bfloat16(), tokens)
    assert (result.bfloat16() != result).float().mean() > 0.9
    normed = []
    model.decoder.layer_norm.register_forward_hook(lambda *call: normed.append(call[-1]))
    logits(model, features, tokens)
    copy = inference_copy(model, torch.bfloat16)
    torch.testing.assert_close(
        copy.decoder.output_projection(normed[0]), model.decoder.output_projection(normed[0])
    )


def test_bf16_keeps_small_changes_beside_large_embeddings(model):
    features, tokens = torch.randn(2, 50, 6), torch.randint(4, 18, (1, 5)).expand(2, 5)
    with torch.no_grad():
        model.decoder.embed_tokens.weight.mul_(1000)  # beside which bf16 has no place for the rest
    here, there = logits(model, features, tokens)
    copy = inference_copy(model, torch.bfloat16)
    rounded_here, rounded_there = logits(copy, features.bfloat16(), tokens)
    expected = here - there
    assert (rounded_here - rounded_there - expected).norm() < 0.05 * expected.norm()


def test_leaves_the_model_as_it_is(model):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    inference_copy(model, torch.bfloat16)
    after = model.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert not isinstance(model.decoder.layers[0].encoder_attn, CrossAttention)


def test_padding_is_refused(model):
    copy = inference_copy(model, torch.float32)
    encoder_out = model.encoder(torch.randn(2, 30, 6), torch.tensor([30, 20]))
    with pytest.raises(ValueError, match="padding, expected utterances of one length"):
        copy.decoder(torch.tensor([[2, 5], [2, 5]]), encoder_out=encoder_out)


@pytest.mark.parametrize("size", [16, 21])
@pytest.mark.parametrize("bias", [True, False])
def test_a_linear_layer_of_any_size(size, bias):
    layer = torch.nn.Linear(8, size, bias=bias)
    x = torch.randn(2, 3, 8)
    torch.testing.assert_close(AlignedLinear(layer, torch.float32)(x), layer(x))
