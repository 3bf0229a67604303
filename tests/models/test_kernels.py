"""Triton kernels of the models, in the interpreter, against what they stand for."""

import building
import pytest
import torch
from interpreted import addresses, kernels  # noqa: F401
from torch.nn import functional

from fbk_xattn.explain.shared_attention import _attend
from fbk_xattn.models.masking import length_mask, zero_padding
from fbk_xattn.models.relative_attention import RelativePositions, sinusoids

attention, decoder, depthwise, encoder, gradients, products, relative_shift, rowwise = kernels(
    *(
        f"fbk_xattn.models.cuda.{name}"
        for name in (
            "attention", "decoder", "depthwise", "encoder", "gradients", "products",
            "relative_shift", "rowwise",
        )
    )
)  # fmt: skip
pytestmark = pytest.mark.usefixtures("addresses")
SIZES = {"encoder_embed_dim": 64, "decoder_embed_dim": 64, "encoder_attention_heads": 4}
TOLERANCE = {torch.float32: 1e-4, torch.float16: 0.05}


@pytest.fixture
def tiles(monkeypatch):
    """Let products take the kernel wherever they run, and attention several blocks."""
    monkeypatch.setattr(products, "_has_tiles", lambda x, _: x.dtype != torch.float32)
    monkeypatch.setitem(attention.RELATIVE_TILE, "ROWS", 32)


@pytest.mark.usefixtures("tiles")
@pytest.mark.parametrize(("n", "inputs", "outputs"), [(1, 16, 16), (130, 80, 112), (40, 128, 256)])
def test_products_with_swish_or_gates_inside(n, inputs, outputs):
    torch.manual_seed(0)
    x, bias = torch.randn(n, inputs).half(), torch.randn(outputs).half()
    weight = (torch.randn(outputs, inputs) / inputs**0.5).half()
    product = functional.linear(x.float(), weight.float(), bias.float())
    for ours, own_bias, expected in (
        (products.linear_swish, bias, functional.silu(product)),
        (products.linear_gated, bias.float(), functional.glu(product)),
    ):
        result = ours(x, weight, own_bias).float()
        torch.testing.assert_close(result, expected, atol=4e-3, rtol=4e-3)


@pytest.mark.usefixtures("tiles")
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("n_frames", [3, 61, 300])
@pytest.mark.parametrize("sizes", [{}, {**SIZES, "encoder_layers": 1}])
def test_the_fused_encoder_gives_what_the_encoder_gives(dtype, n_frames, sizes):
    torch.manual_seed(0)
    model = building.build(**sizes)
    features = torch.randn(2, n_frames, 6)
    model(torch.randn(3, 70, 6), torch.tensor([70, 60, 50]), torch.randint(4, 18, (3, 5)))
    model.eval()  # with running statistics of the batch norm that are not those it begins with
    with torch.no_grad():
        expected = model.encoder(features, torch.full((2,), n_frames))["encoder_out"][0]
    result = encoder.FusedEncoder(model.encoder, dtype)(features)["encoder_out"][0]
    assert result.dtype == dtype
    torch.testing.assert_close(result.float(), expected, atol=TOLERANCE[dtype], rtol=0)


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_the_fused_decoder_gives_what_the_decoder_gives(dtype):
    torch.manual_seed(0)
    model = building.build(**SIZES).eval()
    tokens, encoded = torch.randint(4, 18, (1, 5)).expand(3, 5), torch.randn(9, 3, 64)
    encoder_out = {"encoder_out": [encoded], "encoder_padding_mask": []}
    half = {"encoder_out": [encoded.to(dtype)]}
    with torch.no_grad():
        expected = model.decoder(tokens, encoder_out=encoder_out)[0]
        result = decoder.FusedDecoder(model.decoder, dtype)(tokens, half)[0]
    torch.testing.assert_close(result.float(), expected, atol=TOLERANCE[dtype], rtol=0)


@pytest.mark.parametrize(("n_tokens", "n_copies", "size"), [(1, 1, 1), (5, 3, 70), (70, 2, 9)])
def test_attention_to_shared_keys(n_tokens, n_copies, size):
    torch.manual_seed(0)
    query, (key, value) = torch.randn(n_tokens, n_copies, 24), torch.randn(2, size, 24).unbind()
    kept = torch.rand(n_copies, size) > 0.5
    result = attention.attend_to_shared(query, key, value, kept, 2)
    torch.testing.assert_close(result, _attend(query, key, value, kept, 2))


@pytest.mark.parametrize("lengths", [[7, 7], [5, 3, 1], [66, 33]])
@pytest.mark.parametrize(("kernel", "dim"), [(1, 16), (7, 100), (31, 16)])
def test_depthwise_convolution_and_its_gradients(lengths, kernel, dim):
    torch.manual_seed(0)
    tensor = torch.tensor(lengths)
    mask = length_mask(tensor, max(lengths) + 2)
    weight = torch.randn(dim, 1, kernel, requires_grad=True)
    x, upstream = torch.randn(2, len(lengths), max(lengths) + 2, dim).unbind()
    x.requires_grad_()
    convolved = functional.conv1d(
        zero_padding(x, mask).transpose(1, 2), weight, padding=kernel // 2, groups=dim
    )
    expected = zero_padding(convolved.transpose(1, 2), mask)
    result = depthwise.CUDADepthwise.apply(x, weight, tensor)
    torch.testing.assert_close(result, expected, atol=1e-5, rtol=1e-5)
    theirs, ours = (torch.autograd.grad(y, (x, weight), upstream) for y in (expected, result))
    for by_result, by_expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(by_result, by_expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("lengths", [[7, 7], [5, 3, 1], [40, 33, 2]])
def test_relative_shift_and_its_gradient(lengths):
    torch.manual_seed(0)
    size, tensor = max(lengths) + 3, torch.tensor(lengths)
    scores = torch.randn(2, len(lengths), size, size, requires_grad=True)
    positions = RelativePositions.of(sinusoids(size, 4), tensor, length_mask(tensor, size))
    expected = positions.attention_bias(scores)
    result = relative_shift.CUDAShift.apply(scores, tensor)
    upstream = torch.randn_like(scores)
    for i, n in enumerate(lengths):
        assert torch.equal(result[:, i, :n], expected[:, i, :n])
        upstream[:, i, n:] = upstream[:, i, :, n:] = 0
    theirs, ours = (torch.autograd.grad(y, scores, upstream)[0] for y in (expected, result))
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize("shape", [(3, 7, 20), (40, 5, 33)])
def test_gradients_of_layer_norms_and_linear_layers(shape):
    torch.manual_seed(0)
    x, dim = torch.randn(*shape, requires_grad=True), shape[-1]
    weight, bias = (torch.randn(dim, requires_grad=True) for _ in range(2))
    matrix = torch.randn(dim, dim, requires_grad=True)
    upstream = torch.randn(*shape)
    for expected, result, wanted in (
        (
            functional.layer_norm(x, (dim,), weight, bias),
            gradients.CUDALayerNorm.apply(x, weight, bias, 1e-5),
            (x, weight, bias),
        ),
        (
            functional.linear(x, matrix, bias),
            gradients.CUDALinear.apply(x, matrix, bias),
            (x, matrix, bias),
        ),
    ):
        theirs, ours = (torch.autograd.grad(y, wanted, upstream) for y in (expected, result))
        for by_result, by_expected in zip(ours, theirs, strict=True):
            torch.testing.assert_close(by_result, by_expected, atol=1e-3, rtol=1e-4)


def test_layer_norms_before_and_after_a_sum():
    torch.manual_seed(0)
    x, offset, norm, final = (torch.randn(*size) for size in ((7, 20), (20,), (2, 20), (2, 20)))
    first = functional.layer_norm(x + offset, (20,), *final)
    expected = functional.layer_norm(first, (20,), *norm)
    result = rowwise.normalise(x, offset, norm, 1e-5, final=final)
    torch.testing.assert_close(x, first)
    torch.testing.assert_close(result, expected)


def test_gates_of_any_size():
    gate = torch.tensor([-1e4, -200, -80, -20, -1, 0, 1, 20, 200, 1e4])
    result = rowwise.gated(torch.cat([torch.ones(10), gate])[None], torch.zeros(20))
    torch.testing.assert_close(result[0], gate.sigmoid(), atol=1e-19, rtol=1e-5)


def test_an_address_outside_is_noticed():
    x, bias = torch.randn(3, 8), torch.randn(7)  # of which 8 are read
    with pytest.raises(Exception, match="addresses"):
        rowwise.gated(x, bias)
