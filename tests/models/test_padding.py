import building
import numpy as np
import pytest
import torch
from golden import published
from hypothesis import given, settings
from hypothesis import strategies as st
from pangolinn import seq2seq


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
    for name in ("depthwise_conv1d", "batchnorm", "second_pointwise_conv1d"):
        getattr(module, name).register_forward_pre_hook(
            lambda _, args, name=name: seen.update({name: args[0]})
        )
    padding = torch.arange(9) >= torch.tensor([[9], [4]])
    out = module(torch.randn(2, 9, 16), padding)
    for name, x in {**seen, "output": out.transpose(1, 2)}.items():
        assert not x[1, :, 4:].any(), name
        assert x[1, :, :4].any(), name
    assert len(seen) == 3


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
