import pytest
import torch
from golden import published

from fbk_xattn.generation.recorder import CrossAttentionRecorder


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


@torch.no_grad()
def test_recording_changes_no_logit(decoder):
    tokens, out, _ = encode(0, 1, 2)
    before, _ = decoder(tokens, encoder_out=out)
    with CrossAttentionRecorder(decoder):
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
def test_last_pass_is_kept(decoder):
    with CrossAttentionRecorder(decoder) as recorder:
        for utterance in (1, 0):
            tokens, out, (length,) = encode(utterance)
            decoder(tokens, encoder_out=out)
    assert recorder.cross_attention().shape[-2:] == (tokens.shape[1], length)


def test_hooks_are_removed(decoder):
    tokens, out, _ = encode(0)
    before = hooks(decoder)
    with CrossAttentionRecorder(decoder) as recorder:
        assert hooks(decoder) > before
        decoder(tokens, encoder_out=out)
    assert hooks(decoder) == before
    first = recorder.cross_attention()
    decoder(tokens[:, :3], encoder_out=out)
    assert torch.equal(recorder.cross_attention(), first)


def test_hooks_are_removed_after_an_error_too(decoder):
    before = hooks(decoder)
    with pytest.raises(KeyError), CrossAttentionRecorder(decoder):
        raise KeyError
    assert hooks(decoder) == before


def test_weights_hold_no_graph(decoder):
    tokens, out, _ = encode(0)
    with CrossAttentionRecorder(decoder) as recorder:
        logits, _ = decoder(tokens, encoder_out=out)
    assert logits.requires_grad
    assert not recorder.cross_attention().requires_grad


def test_nothing_recorded_is_an_error(decoder):
    with CrossAttentionRecorder(decoder) as recorder, pytest.raises(RuntimeError, match="no dec"):
        recorder.cross_attention()
