import copy

import building
import pytest
import torch
from golden import published

from fbk_xattn.errors import InputError
from fbk_xattn.generation.recorder import (
    RECORDERS,
    CrossAttentionNormRecorder,
    CrossAttentionRecorder,
)

EVERY_KIND = pytest.mark.parametrize("recorder_of", RECORDERS.values(), ids=RECORDERS)


@pytest.fixture(scope="module")
def decoder():
    return published.load()[0].decoder


@torch.no_grad()
def encode(*utterances):
    """Return decoder input, encoder output and its lengths of a batch."""
    net_input = published.batch(*utterances)["net_input"]
    model, _, _ = published.load()
    out = model.encoder(net_input["src_tokens"], net_input["src_lengths"])
    return net_input["prev_output_tokens"], out, out["src_lengths"][0].tolist()


def hooks(decoder):
    modules = [layer.encoder_attn for layer in decoder.layers]
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in modules)


@EVERY_KIND
@torch.no_grad()
def test_recording_changes_no_logit(decoder, recorder_of):
    tokens, out, _ = encode(0, 1, 2)
    before, _ = decoder(tokens, encoder_out=out)
    with recorder_of(decoder):
        during, _ = decoder(tokens, encoder_out=out)
    after, _ = decoder(tokens, encoder_out=out)
    assert torch.equal(before, during)
    assert torch.equal(before, after)


@torch.no_grad()
def test_every_layer_and_head_is_recorded(decoder):
    tokens, out, lengths = encode(0, 1, 2)
    with CrossAttentionRecorder(decoder) as recorder:
        decoder(tokens, encoder_out=out)
    weights = recorder.cross_attention()
    n_layers, n_heads = len(decoder.layers), decoder.layers[0].encoder_attn.num_heads
    assert weights.shape == (3, n_layers, n_heads, tokens.shape[1], max(lengths))
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(weights.shape[:-1]))
    assert (weights >= 0).all()
    for row, length in enumerate(lengths):
        assert not weights[row, ..., length:].any()
    for layer in range(1, n_layers):
        assert not torch.allclose(weights[:, layer], weights[:, 0])


@torch.no_grad()
def test_weights_are_those_of_the_formula(decoder):
    """Softmax of queries and keys of one layer, from what the layer was given."""
    tokens, out, _ = encode(0)
    layer = decoder.layers[1].encoder_attn
    given = {}
    handle = layer.register_forward_pre_hook(
        lambda _, _args, kwargs: given.update(kwargs), with_kwargs=True
    )
    with CrossAttentionRecorder(decoder) as recorder:
        decoder(tokens, encoder_out=out)
    handle.remove()
    width = layer.embed_dim // layer.num_heads
    query = layer.q_proj(given["query"])[:, 0].unflatten(1, (layer.num_heads, width))
    key = layer.k_proj(given["key"])[:, 0].unflatten(1, (layer.num_heads, width))
    expected = (torch.einsum("shw,thw->hst", query, key) / width**0.5).softmax(dim=-1)
    torch.testing.assert_close(recorder.cross_attention()[0, 1], expected, atol=1e-6, rtol=1e-5)


@torch.no_grad()
def explicit_vectors(layer, states, weights):
    """Return ``alpha f(x)`` as the paper has it, ``(H, S, T', d)``, of one utterance.

    Every head has rows of its own in the output projection and columns of its own in the others.
    """
    width = layer.embed_dim // layer.num_heads
    vectors = []
    for head in range(layer.num_heads):
        own = slice(head * width, (head + 1) * width)
        value = states @ layer.v_proj.weight.t()[:, own] + layer.v_proj.bias[own]
        transformed = value @ layer.out_proj.weight.t()[own]
        vectors.append(weights[head, :, :, None] * transformed)
    return torch.stack(vectors)


@torch.no_grad()
def test_norms_are_those_of_the_explicit_vectors(decoder):
    tokens, out, lengths = encode(0, 1, 2)
    outputs = {}
    handles = [
        layer.encoder_attn.register_forward_hook(
            lambda module, _args, output: outputs.update({module: output[0]})
        )
        for layer in decoder.layers
    ]
    with CrossAttentionRecorder(decoder) as weights:
        decoder(tokens, encoder_out=out)
    with CrossAttentionNormRecorder(decoder) as norms:
        decoder(tokens, encoder_out=out)
    for handle in handles:
        handle.remove()
    for row, length in enumerate(lengths):
        for number, layer in enumerate(decoder.layers):
            attention, states = layer.encoder_attn, out["encoder_out"][0][:, row]
            assert attention.v_proj.bias.abs().max() > 0.01  # a bias is part of the values
            vectors = explicit_vectors(attention, states, weights.cross_attention()[row, number])
            # They are all that there is: together, and with the bias of no head, the output.
            torch.testing.assert_close(
                vectors.sum(dim=(0, 2)) + attention.out_proj.bias,
                outputs[attention][:, row],
                atol=1e-5,
                rtol=1e-4,
            )
            expected = vectors.norm(dim=-1)
            recorded = norms.cross_attention()[row, number]
            torch.testing.assert_close(recorded, expected, atol=1e-6, rtol=1e-5)
            assert not recorded[..., length:].any()
            assert not torch.allclose(recorded.sum(dim=-1), torch.ones(recorded.shape[:-1]))


@pytest.mark.parametrize("options", [{}, {"decoder_attention_heads": 8, "decoder_embed_dim": 48}])
@torch.no_grad()
def test_other_decoders_have_norms_too(options):
    """fairseq's own, also where the decoder is wider than the encoder."""
    torch.manual_seed(3)
    model = building.build("s2t_transformer", encoder_embed_dim=24, **options).eval()
    tokens = torch.tensor([[2, 5, 6, 7], [2, 8, 1, 1]])
    speech = torch.randn(2, 30, 6)
    out = model.encoder(speech, torch.tensor([30, 30]))
    with CrossAttentionRecorder(model.decoder) as weights:
        model.decoder(tokens, encoder_out=out)
    with CrossAttentionNormRecorder(model.decoder) as norms:
        model.decoder(tokens, encoder_out=out)
    layer = model.decoder.layers[0].encoder_attn
    states = out["encoder_out"][0]
    for row in range(2):
        vectors = explicit_vectors(layer, states[:, row], weights.cross_attention()[row, 0])
        recorded = norms.cross_attention()[row, 0]
        torch.testing.assert_close(recorded, vectors.norm(dim=-1), atol=1e-6, rtol=1e-5)


@torch.no_grad()
def test_the_weights_that_a_decoder_returns_are_left_alone(decoder):
    tokens, out, _ = encode(0)
    layer, returned = decoder.layers[-1].encoder_attn, []
    with CrossAttentionNormRecorder(decoder):
        handle = layer.register_forward_hook(
            lambda _module, _args, output: returned.append(output[1].sum(dim=-1))
        )
        decoder(tokens, encoder_out=out)
        handle.remove()
    torch.testing.assert_close(returned[0], torch.ones(returned[0].shape))


@EVERY_KIND
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@torch.no_grad()
def test_half_precision_gives_float32(decoder, recorder_of, dtype):
    tokens, out, _ = encode(0)
    with recorder_of(decoder) as expected:
        decoder(tokens, encoder_out=out)
    half = copy.deepcopy(decoder).to(dtype)
    states = {**out, "encoder_out": [out["encoder_out"][0].to(dtype)]}
    with recorder_of(half) as recorder:
        half(tokens, encoder_out=states)
    recorded = recorder.cross_attention()
    assert recorded.dtype == torch.float32
    torch.testing.assert_close(recorded, expected.cross_attention(), atol=0.05, rtol=0.05)


@torch.no_grad()
def test_norms_whose_squares_half_precision_cannot_hold_are_finite(decoder):
    tokens, out, _ = encode(0)
    loud = copy.deepcopy(decoder).half()
    for layer in loud.layers:
        layer.encoder_attn.out_proj.weight *= 300
    states = {**out, "encoder_out": [out["encoder_out"][0].half()]}
    with CrossAttentionNormRecorder(loud) as recorder:
        loud(tokens, encoder_out=states)
    norms = recorder.cross_attention()[0, 0]  # later layers are given the overflow of this one
    assert norms.isfinite().all()
    assert norms.max() > 256 / norms.shape[-1]


@EVERY_KIND
def test_a_decoder_without_cross_attention_is_refused(recorder_of):
    model = building.build(decoder_layers=1)
    model.decoder.layers[0].encoder_attn = None
    for decoder in (model.decoder, torch.nn.Linear(1, 1)):
        with pytest.raises(InputError) as error:
            recorder_of(decoder)
        assert str(error.value) == (
            f"{type(decoder).__name__}: no cross-attention in every layer, expected a Transformer "
            "decoder of fairseq that attends to its encoder"
        )


@torch.no_grad()
def test_last_pass_is_kept(decoder):
    with CrossAttentionRecorder(decoder) as recorder:
        for utterance in (1, 0):
            tokens, out, (length,) = encode(utterance)
            decoder(tokens, encoder_out=out)
    assert recorder.cross_attention().shape[-2:] == (tokens.shape[1], length)


@EVERY_KIND
def test_hooks_are_removed(decoder, recorder_of):
    tokens, out, _ = encode(0)
    before = hooks(decoder)
    with recorder_of(decoder) as recorder:
        assert hooks(decoder) > before
        decoder(tokens, encoder_out=out)
    assert hooks(decoder) == before
    first = recorder.cross_attention()
    decoder(tokens[:, :3], encoder_out=out)
    assert torch.equal(recorder.cross_attention(), first)


@EVERY_KIND
def test_hooks_are_removed_after_an_error_too(decoder, recorder_of):
    before = hooks(decoder)
    with pytest.raises(KeyError), recorder_of(decoder):
        raise KeyError
    assert hooks(decoder) == before


@EVERY_KIND
def test_what_is_recorded_holds_no_graph(decoder, recorder_of):
    tokens, out, _ = encode(0)
    with recorder_of(decoder) as recorder:
        logits, _ = decoder(tokens, encoder_out=out)
    assert logits.requires_grad
    assert not recorder.cross_attention().requires_grad


def test_nothing_recorded_is_an_error(decoder):
    with CrossAttentionRecorder(decoder) as recorder, pytest.raises(RuntimeError, match="no dec"):
        recorder.cross_attention()
