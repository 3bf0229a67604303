import building
import numpy as np
import pytest
import torch
from golden import published
from hypothesis import given, settings
from hypothesis import strategies as st
from pangolinn import seq2seq

from fbk_xattn.models.masking import length_mask
from fbk_xattn.models.relative_attention import RelativePositions, sinusoids


@torch.no_grad()
def outputs(model, features, lengths):
    """Return what must not depend on the batch, each ``(B, T', ...)``."""
    tokens = torch.tensor([[2, 4, 9]]).expand(len(features), -1)
    out = model.encoder(features, lengths, return_all_hiddens=True)
    return {
        "encoder_out": out["encoder_out"][0].transpose(0, 1),
        "first block": out["encoder_states"][0].transpose(0, 1),
        "ctc": model.encoder.ctc_logits(out).transpose(0, 1),
        "auxiliary": model.auxiliary_logits(out, tokens),
    }, out["src_lengths"][0].tolist()


@given(
    lengths=st.lists(st.integers(1, 130), min_size=1, max_size=4),
    extra=st.integers(0, 40),
    garbage=st.sampled_from([0.0, 1.0, -1e6, float("nan"), float("inf")]),
    seed=st.integers(0, 1000),
)
@settings(max_examples=40, deadline=None)
def test_padding_changes_nothing_whatever_is_in_it(lengths, extra, garbage, seed):
    model, _, _ = published.load()
    rng = np.random.default_rng(seed)
    alone = [torch.tensor(rng.standard_normal((1, n, 80)), dtype=torch.float32) for n in lengths]
    features = torch.full((len(lengths), max(lengths) + extra, 80), garbage)
    for row, utterance in enumerate(alone):
        features[row, : utterance.shape[1]] = utterance[0]
    together, steps = outputs(model, features, torch.tensor(lengths))
    for row, utterance in enumerate(alone):
        expected, (n_steps,) = outputs(model, utterance, torch.tensor([lengths[row]]))
        assert steps[row] == n_steps == -(-lengths[row] // 4)
        for name, values in expected.items():
            torch.testing.assert_close(
                together[name][row, :n_steps], values[0], atol=5e-5, rtol=1e-4, msg=name
            )
        assert not together["auxiliary"][row, n_steps:].any()


def test_convolution_module_sees_zeros_on_padding_in_training_too():
    """Batch statistics then do not depend on what attention left on the padding."""
    module = building.build().train().encoder.conformer_layers[0].conv_module
    seen = {}
    for name in ("depthwise_conv1d", "batchnorm"):
        getattr(module, name).register_forward_pre_hook(
            lambda _, args, name=name: seen.update({name: args[0]})
        )
    lengths = torch.tensor([9, 4])
    positions = RelativePositions.of(sinusoids(9, 16), lengths, length_mask(lengths, 9))
    module(torch.randn(2, 9, 16), positions)
    for x in (seen["depthwise_conv1d"].transpose(1, 2), seen["batchnorm"].view(2, 9, 16)):
        assert not x[1, 4:].any()
        assert x[1, :4].any()


def test_what_lies_on_padding_changes_no_gradient():
    """Nothing that belongs to an utterance reads padding, forwards or backwards."""
    model = building.build(
        dropout=0.0,
        attention_dropout=0.0,
        activation_dropout=0.0,
        conformer_feedforward_dropout=0.0,
        conformer_attention_dropout=0.0,
        conformer_conv_dropout=0.0,
    ).double()
    lengths, tokens = torch.tensor([40, 17, 4]), torch.randint(4, 20, (3, 5))
    features = torch.randn(3, 40, 6).double()
    gradients = []
    for noise in (0.0, 100.0):
        padding = torch.arange(40) >= lengths.unsqueeze(1)
        noisy = features + noise * padding.unsqueeze(2) * torch.randn(3, 40, 6)
        logits, extra = model(noisy, lengths, tokens)
        steps = extra["encoder_out"]["src_lengths"][0]
        valid = torch.arange(int(steps.max())) < steps.unsqueeze(1)
        ctc = model.encoder.ctc_logits(extra["encoder_out"]).transpose(0, 1)[valid]
        auxiliary = model.auxiliary_logits(extra["encoder_out"], tokens)[valid]
        model.zero_grad()
        sum(x.log_softmax(-1)[..., 5].sum() for x in (logits, ctc, auxiliary)).backward()
        gradients.append({n: p.grad.clone() for n, p in model.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, msg=name)


@pytest.mark.parametrize("kernels", ["5,5", "3,3", "7,3,5"])
def test_padding_changes_nothing_with_other_convolutions(kernels):
    model = building.build(conv_kernel_sizes=kernels).double().eval()
    lengths = [33, 17, 9, 1]
    features = torch.randn(4, 40, 6).double()
    together, steps = outputs(model, features, torch.tensor(lengths))
    for row, n in enumerate(lengths):
        expected, (n_steps,) = outputs(model, features[row : row + 1, :n], torch.tensor([n]))
        assert steps[row] == n_steps == -(-n // model.encoder.frames_per_step)
        for name, values in expected.items():
            torch.testing.assert_close(together[name][row, :n_steps], values[0], msg=name)


class EncoderWrapper(seq2seq.PangolinnSeq2SeqModuleWrapper):
    """The encoder, in double precision: the test's tolerance is that of rounding alone."""

    num_input_channels = 6
    num_output_channels = 16
    sequence_downsampling_factor = 4
    input_dtype = torch.double

    def build_module(self):
        return building.build().double()

    def forward(self, x, lengths):
        return self._module.encoder(x, lengths)["encoder_out"][0].transpose(0, 1)


class AuxiliaryWrapper(EncoderWrapper):
    """The encoder and its head over target texts."""

    num_output_channels = 21

    def forward(self, x, lengths):
        tokens = torch.tensor([[2, 4]]).expand(len(x), -1)
        return self._module.auxiliary_logits(self._module.encoder(x, lengths), tokens)


class TestEncoderOfPangolinn(seq2seq.EncoderPaddingTestCase):
    module_wrapper_class = EncoderWrapper
    test_padding_area_is_zero = None  # what lies beyond a length is masked by its mask, not zero


class TestAuxiliaryHeadOfPangolinn(seq2seq.EncoderPaddingTestCase):
    module_wrapper_class = AuxiliaryWrapper
