import building
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from fbk_xattn.models.masking import length_mask, zero_padding
from fbk_xattn.models.relative_attention import (
    RelativeMultiHeadAttention,
    RelativePositions,
    sinusoids,
)


def naive_shift(scores):
    """Prepend a zero column to ``(H, n, n)``, reshape to ``(H, n + 1, n)``, drop the first row."""
    heads, n, _ = scores.shape
    return functional.pad(scores, (1, 0)).reshape(heads, n + 1, n)[:, 1:]


@given(st.lists(st.integers(1, 12), min_size=1, max_size=4), st.integers(0, 3))
def test_shift_is_that_of_each_utterance_alone(lengths, extra):
    """``extra`` steps of padding beyond the longest; lengths all equal take the short way."""
    size = max(lengths) + extra
    scores = torch.randn(3, len(lengths), size, size)
    table = sinusoids(size, 4)
    tensor = torch.tensor(lengths)
    positions = RelativePositions.of(table, tensor, length_mask(tensor, size))
    shifted = positions.attention_bias(scores)
    for i, n in enumerate(lengths):
        assert torch.equal(shifted[:, i, :n, :n], naive_shift(scores[:, i, :n, :n]))
        assert torch.isneginf(shifted[:, i, :, n:]).all()


@given(st.lists(st.integers(1, 9), min_size=1, max_size=3), st.integers(0, 2))
def test_shift_takes_gradients_back_to_where_scores_came_from(lengths, extra):
    size = max(lengths) + extra
    table, tensor = sinusoids(size, 4).double(), torch.tensor(lengths)
    positions = RelativePositions.of(table, tensor, length_mask(tensor, size))
    scores = torch.randn(2, len(lengths), size, size, dtype=torch.double, requires_grad=True)
    weights = torch.randn_like(scores)
    # What lies beyond a length gets no gradient from attention.
    for i, n in enumerate(lengths):
        weights[:, i, n:] = weights[:, i, :, n:] = 0
    total = torch.zeros(())
    for i, n in enumerate(lengths):
        total = total + (naive_shift(scores[:, i, :n, :n]) * weights[:, i, :n, :n]).sum()
    (expected,) = torch.autograd.grad(total, scores)
    (gradient,) = torch.autograd.grad(positions.attention_bias(scores), scores, weights)
    assert torch.equal(gradient, expected)


@given(st.integers(1, 12))
def test_shift_without_padding_is_the_plain_one(size):
    scores = torch.randn(3, 2, size, size)
    shifted = RelativePositions.of(sinusoids(size, 4), None, None).attention_bias(scores)
    for i in range(2):
        assert torch.equal(shifted[:, i], naive_shift(scores[:, i]))


def test_positions_are_sines_and_cosines():
    table = sinusoids(50, 6).double()
    assert table.shape == (50, 6)
    for position in (0, 1, 49):
        for pair in range(3):
            angle = torch.tensor(position / 10_000 ** (2 * pair / 6), dtype=torch.double)
            assert table[position, 2 * pair].item() == pytest.approx(angle.sin().item(), abs=1e-5)
            assert table[position, 2 * pair + 1].item() == pytest.approx(
                angle.cos().item(), abs=1e-5
            )


def test_positions_are_computed_once_for_all_blocks():
    model = building.build(encoder_layers=5)
    tables = [name for name, _ in model.encoder.named_buffers() if "position" in name]
    assert tables == ["positions"]


def plain_attention(module, x):
    """Compute one utterance ``(n, d)`` head by head, as the formula says."""
    n, dim = x.shape
    heads, width = module.u_bias.shape
    table = module.pos_proj.weight @ sinusoids(n, dim).double().t()
    outputs = []
    for head in range(heads):
        part = slice(head * width, (head + 1) * width)
        q, k, v = (
            x @ projection.weight[part].t() + projection.bias[part]
            for projection in (module.query_proj, module.key_proj, module.value_proj)
        )
        content = (q + module.u_bias[head]) @ k.t()
        position = naive_shift(((q + module.v_bias[head]) @ table[part])[None])[0]
        weights = ((content + position) / dim**0.5).softmax(dim=-1)
        outputs.append(weights @ v)
    return torch.cat(outputs, dim=1) @ module.out_proj.weight.t() + module.out_proj.bias


@torch.no_grad()
def test_attention_is_that_of_the_formula():
    """Scaled by the root of the model dimension, not of the head's."""
    torch.manual_seed(0)
    module = RelativeMultiHeadAttention(8, 2, dropout=0.5).double().eval()
    for projection in (module.query_proj, module.key_proj, module.value_proj, module.out_proj):
        torch.nn.init.normal_(projection.bias)
    lengths = torch.tensor([9, 4, 1])
    x = 2 * torch.randn(3, 9, 8).double()
    table = sinusoids(9, 8).double()
    out = module(x, RelativePositions.of(table, lengths, length_mask(lengths, 9)))
    for i, n in enumerate(lengths.tolist()):
        torch.testing.assert_close(out[i, :n], plain_attention(module, x[i, :n]))
    unpadded = module(x, RelativePositions.of(table, None, None))
    torch.testing.assert_close(unpadded[1], plain_attention(module, x[1]))


def test_attention_drops_out_in_training_only():
    torch.manual_seed(0)
    module = RelativeMultiHeadAttention(8, 2, dropout=0.5)
    x, positions = torch.randn(1, 9, 8), RelativePositions.of(sinusoids(9, 8), None, None)
    assert not torch.equal(module(x, positions), module(x, positions))
    module.eval()
    assert torch.equal(module(x, positions), module(x, positions))


def test_length_mask_is_true_on_padding():
    mask = length_mask(torch.tensor([3, 1, 0]), 3)
    assert mask.tolist() == [[False] * 3, [False, True, True], [True] * 3]


@pytest.mark.parametrize("time_dim", [1, 2])
def test_padding_is_zeroed_along_time(time_dim):
    x = torch.ones(2, 3, 4) if time_dim == 1 else torch.ones(2, 4, 3)
    x[1] = float("nan")
    zeroed = zero_padding(x, length_mask(torch.tensor([2, 0]), 3), time_dim)
    expected = torch.tensor([[1.0, 1, 0], [0, 0, 0]])
    expected = expected[:, :, None] if time_dim == 1 else expected[:, None]
    assert torch.equal(zeroed, expected.expand_as(x))
    assert zero_padding(x, None, time_dim) is x
