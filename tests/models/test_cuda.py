"""What is computed otherwise on CUDA devices, against the CPU; skipped where there is none."""

import copy

import building
import pytest
import torch
from torch.nn import functional

from fbk_xattn.criterions.ctc import ctc_loss
from fbk_xattn.models.inference import inference_copy
from fbk_xattn.models.masking import length_mask, zero_padding
from fbk_xattn.models.projection import LayerNorm, Linear, VocabularyProjection
from fbk_xattn.models.relative_attention import RelativePositions, sinusoids

if not torch.cuda.is_available():
    pytest.skip("no CUDA device", allow_module_level=True)

from fbk_xattn.models.cuda.decoder import FusedDecoder
from fbk_xattn.models.cuda.depthwise import CUDADepthwise
from fbk_xattn.models.cuda.encoder import FusedEncoder
from fbk_xattn.models.cuda.products import linear_gated, linear_swish

NO_DROPOUT = {
    "dropout": 0.0,
    "attention_dropout": 0.0,
    "activation_dropout": 0.0,
    "conformer_feedforward_dropout": 0.0,
    "conformer_attention_dropout": 0.0,
    "conformer_conv_dropout": 0.0,
}
SIZES = {"encoder_embed_dim": 64, "decoder_embed_dim": 64, "encoder_attention_heads": 4}


@pytest.fixture(autouse=True)
def exact_products():
    """Leave no product to TF32, which has 10 bits of mantissa."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


@pytest.mark.parametrize("lengths", [[7, 7], [5, 3, 1], [40, 33, 2], [250, 249, 1, 128]])
@pytest.mark.parametrize("extra", [0, 3])
def test_shift_is_that_of_the_cpu(lengths, extra):
    size, tensor = max(lengths) + extra, torch.tensor(lengths)
    scores = torch.randn(2, len(lengths), size, size)
    weights = torch.randn_like(scores)
    for i, n in enumerate(lengths):
        weights[:, i, n:] = weights[:, i, :, n:] = 0
    results = []
    for device in ("cpu", "cuda"):
        table, steps = sinusoids(size, 4).to(device), tensor.to(device)
        positions = RelativePositions.of(table, steps, length_mask(steps, size))
        own = scores.to(device).requires_grad_()
        bias = positions.attention_bias(own)
        (gradient,) = torch.autograd.grad(bias, own, weights.to(device))
        results.append((bias.detach().cpu(), gradient.cpu()))
    for i, n in enumerate(lengths):
        assert torch.equal(results[0][0][:, i, :n], results[1][0][:, i, :n])
    assert torch.equal(results[0][1], results[1][1])


def test_shift_without_lengths_takes_all_steps():
    scores = torch.randn(2, 3, 9, 9)
    expected = RelativePositions.of(sinusoids(9, 4), None, None).attention_bias(scores)
    positions = RelativePositions.of(sinusoids(9, 4).cuda(), None, None)
    assert torch.equal(positions.attention_bias(scores.cuda()).cpu(), expected)


@pytest.mark.parametrize("lengths", [[7, 7], [5, 3, 1], [130, 33, 2]])
@pytest.mark.parametrize("kernel", [1, 7, 31])
@pytest.mark.parametrize("dim", [16, 100])
def test_depthwise_convolution_is_that_of_the_cpu(lengths, kernel, dim):
    tensor = torch.tensor(lengths)
    mask = length_mask(tensor, max(lengths) + 2)
    weight = torch.randn(dim, 1, kernel, requires_grad=True)
    x, upstream = torch.randn(2, len(lengths), max(lengths) + 2, dim).unbind()
    x.requires_grad_()
    padded = zero_padding(x, mask).transpose(1, 2)
    convolved = functional.conv1d(padded, weight, padding=kernel // 2, groups=dim)
    expected = zero_padding(convolved.transpose(1, 2), mask)
    by_expected = torch.autograd.grad(expected, (x, weight), upstream)
    on_device = [t.detach().cuda().requires_grad_() for t in (x, weight)]
    result = CUDADepthwise.apply(*on_device, tensor.cuda())
    by_result = torch.autograd.grad(result, on_device, upstream.cuda())
    torch.testing.assert_close(result.cpu(), expected, atol=1e-5, rtol=1e-5)
    for gradient, by_cpu in zip(by_result, by_expected, strict=True):
        torch.testing.assert_close(gradient.cpu(), by_cpu, atol=1e-4, rtol=1e-4)


def losses(model, features, lengths, tokens):
    """Return a loss of every head, and its gradients."""
    device = next(model.parameters()).device
    features, lengths, tokens = features.to(device), lengths.to(device), tokens.to(device)
    logits, extra = model(features.to(next(model.parameters()).dtype), lengths, tokens)
    out = extra["encoder_out"]
    heads = model.encoder.ctc_logits(out), model.auxiliary_logits(out, tokens).transpose(0, 1)
    target_lengths = torch.full_like(lengths, 3)
    loss = -logits.float().log_softmax(-1)[..., 5].sum()
    for head in heads:
        loss = loss + ctc_loss(head, out["src_lengths"][0], tokens, target_lengths, blank=19)
    model.zero_grad()
    loss.backward()
    return loss.item(), {n: p.grad.float().cpu() for n, p in model.named_parameters()}


def batch():
    torch.manual_seed(1)
    return torch.randn(3, 61, 6), torch.tensor([61, 40, 17]), torch.randint(4, 18, (3, 5))


@pytest.mark.parametrize("train", [False, True])
def test_losses_and_gradients_are_those_of_the_cpu(train):
    torch.manual_seed(0)
    model = building.build(**NO_DROPOUT, **SIZES).train(train)
    reference = building.build(**NO_DROPOUT, **SIZES).train(train)
    reference.load_state_dict(model.state_dict())
    expected, by_expected = losses(reference, *batch())
    loss, by_loss = losses(model.cuda(), *batch())
    assert loss == pytest.approx(expected, rel=1e-5)
    for name, gradient in by_expected.items():
        torch.testing.assert_close(by_loss[name], gradient, atol=2e-4, rtol=2e-3, msg=name)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_near_single_precision(dtype):
    torch.manual_seed(0)
    model = building.build(**NO_DROPOUT, **SIZES).cuda()
    expected, by_expected = losses(model, *batch())
    loss, by_loss = losses(copy.deepcopy(model).to(dtype), *batch())
    assert loss == pytest.approx(expected, rel=0.02)
    alike = [
        torch.cosine_similarity(by_loss[n].flatten(), g.flatten(), dim=0).item()
        for n, g in by_expected.items()
        # The bias of a key has no gradient but rounding.
        if not n.endswith(("key_proj.bias", "k_proj.bias"))
    ]
    assert min(alike) > 0.9


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_padding_changes_nothing(dtype):
    torch.manual_seed(0)
    model = building.build(**SIZES).cuda().eval().to(dtype)
    features, lengths, _ = batch()
    features = features.cuda().to(dtype)
    tolerance = {"atol": 5e-5, "rtol": 1e-4} if dtype == torch.float32 else {"atol": 0.1, "rtol": 0}
    together = model.encoder(features, lengths.cuda())["encoder_out"][0]
    for row, n in enumerate(lengths.tolist()):
        alone = model.encoder(features[row : row + 1, :n], None)["encoder_out"][0]
        torch.testing.assert_close(together[: len(alone), row], alone[:, 0], **tolerance)


def test_projection_onto_an_odd_vocabulary_has_its_size():
    torch.manual_seed(0)
    projection = VocabularyProjection(64, 301).cuda()
    x = torch.randn(5, 7, 64).cuda()
    expected = projection(x)
    upstream = torch.randn_like(expected)
    by_expected = torch.autograd.grad(expected, [projection.weight, projection.bias], upstream)
    logits = projection.bfloat16()(x.bfloat16())
    assert logits.shape == (5, 7, 301)
    torch.testing.assert_close(logits.float(), expected, atol=0.05, rtol=0.02)
    wanted = [projection.weight, projection.bias]
    gradients = torch.autograd.grad(logits, wanted, upstream.bfloat16())
    for gradient, by_float in zip(gradients, by_expected, strict=True):
        torch.testing.assert_close(gradient.float(), by_float, atol=0.1, rtol=0.02)


@pytest.mark.parametrize("n_frames", [3, 61, 300])
@pytest.mark.parametrize("n_utterances", [1, 5])
@pytest.mark.parametrize("sizes", [{}, SIZES, {**SIZES, "encoder_attention_heads": 2}])
def test_the_fused_encoder_gives_what_the_encoder_gives(n_frames, n_utterances, sizes):
    torch.manual_seed(0)
    model = building.build(**sizes)
    features = torch.randn(n_utterances, n_frames, 6)
    model(torch.randn(3, 70, 6), torch.tensor([70, 60, 50]), torch.randint(4, 18, (3, 5)))
    model.eval()  # with running statistics of the batch norm that are not those it begins with
    with torch.no_grad():
        expected = model.encoder(features, torch.full((n_utterances,), n_frames))["encoder_out"][0]
    for dtype, tolerance in ((torch.float32, 1e-4), (torch.float16, 0.05), (torch.bfloat16, 0.3)):
        fused = inference_copy(model.cuda(), dtype).encoder
        assert isinstance(fused, FusedEncoder)
        result = fused(features.cuda())["encoder_out"][0]
        assert result.dtype == dtype
        torch.testing.assert_close(result.float().cpu(), expected, atol=tolerance, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_the_fused_encoder_gives_the_same_bits_again(dtype):
    # Its programs write what other threads of theirs read, many times over.
    fused = inference_copy(building.build(**SIZES).eval().cuda(), dtype).encoder
    features = torch.randn(500, 1000, 6, device="cuda")
    first, again = (fused(features)["encoder_out"][0] for _ in range(2))
    assert torch.equal(first, again)


@pytest.mark.parametrize("sizes", [{}, SIZES])
def test_the_fused_decoder_gives_what_the_decoder_gives(sizes):
    torch.manual_seed(0)
    model = building.build(**sizes).eval()
    features, tokens = torch.randn(3, 60, 6), torch.randint(4, 18, (1, 5)).expand(3, 5)
    with torch.no_grad():
        encoder_out = model.encoder(features, torch.full((3,), 60))
        expected = model.decoder(tokens, encoder_out=encoder_out)[0]
    encoded = encoder_out["encoder_out"][0]
    for dtype, of_logits, tolerance in (
        (torch.float32, torch.float32, 1e-4),
        (torch.float16, torch.float16, 0.02),
        (torch.bfloat16, torch.float16, 0.1),
    ):
        fused = inference_copy(model.cuda(), dtype).decoder
        assert isinstance(fused, FusedDecoder)
        with torch.no_grad():
            logits, _ = fused(tokens.cuda(), {"encoder_out": [encoded.cuda().to(dtype)]})
        assert logits.dtype == of_logits
        torch.testing.assert_close(logits.float().cpu(), expected, atol=tolerance, rtol=0)


def test_the_fused_decoder_keeps_small_changes_beside_large_embeddings():
    torch.manual_seed(0)
    model = building.build(decoder_layers=3).eval()
    encoded, tokens = torch.randn(13, 2, 16), torch.randint(4, 18, (1, 5)).expand(2, 5)
    with torch.no_grad():
        model.decoder.embed_tokens.weight.mul_(100)  # beside which bf16 has no place for the rest
        encoder_out = {"encoder_out": [encoded], "encoder_padding_mask": []}
        here, there = model.decoder(tokens, encoder_out=encoder_out)[0]
        fused = inference_copy(model.cuda(), torch.bfloat16).decoder
        half = {"encoder_out": [encoded.cuda().bfloat16()]}
        rounded_here, rounded_there = fused(tokens.cuda(), half)[0].float().cpu()
    expected = here - there
    assert (rounded_here - rounded_there - expected).norm() < 0.2 * expected.norm()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("n", "inputs", "outputs"), [(1, 16, 6), (130, 80, 96), (999, 512, 2048)])
def test_products_with_swish_or_gates_inside(dtype, n, inputs, outputs):
    torch.manual_seed(0)
    x, bias = torch.randn(n, inputs).to(dtype), torch.randn(outputs).to(dtype)
    weight = (torch.randn(outputs, inputs) / inputs**0.5).to(dtype)
    product = functional.linear(x.float(), weight.float(), bias.float())
    tolerance = {torch.float32: 1e-4, torch.float16: 4e-3, torch.bfloat16: 4e-2}[dtype]
    for ours, own_bias, expected in (
        (linear_swish, bias, functional.silu(product)),
        (linear_gated, bias.float(), functional.glu(product)),
    ):
        result = ours(x.cuda(), weight.cuda(), own_bias.cuda())
        assert result.dtype == dtype
        torch.testing.assert_close(result.float().cpu(), expected, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("shape", [(3, 7, 20), (40, 5, 512), (1000, 3, 100)])
def test_gradients_of_linear_layers_and_layer_norms(shape):
    torch.manual_seed(0)
    for layer in (Linear(shape[-1], 33), LayerNorm(shape[-1])):
        with torch.no_grad():
            layer.weight.add_(torch.randn_like(layer.weight))
        x = torch.randn(*shape, requires_grad=True)
        upstream = torch.randn_like(layer(x))
        wanted = (x, layer.weight, layer.bias)
        expected = torch.autograd.grad(layer(x), wanted, upstream)
        on_device = x.detach().cuda().requires_grad_()
        layer.cuda()
        wanted = (on_device, layer.weight, layer.bias)
        result = torch.autograd.grad(layer(on_device), wanted, upstream.cuda())
        for gradient, by_cpu in zip(result, expected, strict=True):
            torch.testing.assert_close(gradient.cpu(), by_cpu, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("n_symbols", [21, 300])
def test_ctc_and_its_gradient_are_those_of_the_cpu(dtype, n_symbols):
    torch.manual_seed(0)
    logits = torch.randn(30, 3, n_symbols + 3).to(dtype)[..., :n_symbols]
    targets = torch.randint(1, n_symbols - 1, (3, 6))
    targets[0, 3] = targets[0, 2]  # a repeated symbol
    targets[2, 4:] = 1  # padding
    arguments = (torch.tensor([30, 20, 3]), targets, torch.tensor([6, 5, 4]))  # the last too short
    results = []
    for device, kind in (("cpu", torch.float32), ("cuda", dtype)):
        own = logits.to(device, kind).detach().requires_grad_()
        loss = ctc_loss(own, *(x.to(device) for x in arguments), n_symbols - 1)
        (gradient,) = torch.autograd.grad(1.7 * loss, own)
        results.append((loss.item(), gradient.float().cpu()))
    assert results[1][0] == pytest.approx(results[0][0], rel=1e-4)
    tolerance = 1e-4 if dtype == torch.float32 else 0.02
    torch.testing.assert_close(results[1][1], results[0][1], atol=tolerance, rtol=tolerance)
