import building
import pytest
import torch

from fbk_xattn.errors import InputError
from fbk_xattn.models.relative_attention import MAX_STEPS


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    ("arch", "n_symbols", "total", "parts"),
    [
        (
            "conformer_joint_ctc_base",
            8_000,
            120.5e6,
            {"encoder": 83.02e6, "decoder": 33.42e6, "auxiliary_decoder": 4.11e6},
        ),
        ("conformer_joint_ctc_small", 16_000, 474.8e6, {}),
        ("conformer_joint_ctc_large", 16_000, 878.3e6, {}),
        ("conformer_base", 8_000, 83.02e6 + 33.42e6, {"encoder": 83.02e6, "decoder": 33.42e6}),
    ],
)
def test_presets_have_the_published_sizes(arch, n_symbols, total, parts):
    with torch.device("meta"):
        model = building.build_preset(arch, building.task(n_symbols))
    assert count(model) == pytest.approx(total, rel=1e-3)
    for name, size in parts.items():
        assert count(getattr(model, name)) == pytest.approx(size, rel=2e-3)
    assert model.decoder.embed_tokens.weight is not model.decoder.output_projection.weight


@pytest.mark.parametrize(
    ("arch", "layers", "dim", "heads", "ctc_layer", "decoder_layers"),
    [
        ("conformer", 12, 512, 8, 8, 6),
        ("conformer_joint_ctc", 12, 512, 8, 8, 6),
        ("conformer_small", 12, 1024, 16, 8, 6),
        ("conformer_large", 24, 1024, 16, 16, 12),
    ],
)
def test_presets_have_the_published_shape(arch, layers, dim, heads, ctc_layer, decoder_layers):
    with torch.device("meta"):
        model = building.build_preset(arch)
    encoder = model.encoder
    assert len(encoder.conformer_layers) == layers
    assert encoder.ctc_encoder_layer == ctc_layer
    assert len(model.decoder.layers) == decoder_layers
    block = encoder.conformer_layers[0]
    assert block.attention.attention.heads == heads
    assert block.first_feed_forward.first_linear.weight.shape == (4 * dim, dim)
    assert block.conv_module.depthwise_conv1d.weight.shape == (dim, 1, 31)
    assert model.decoder.layers[0].encoder_attn.num_heads == heads
    assert hasattr(model, "auxiliary_decoder") == (arch == "conformer_joint_ctc")


def test_feed_forward_width_is_four_times_the_dimension_whatever_the_flag_says():
    model = building.build(encoder_ffn_embed_dim=100)
    assert model.encoder.conformer_layers[0].first_feed_forward.first_linear.out_features == 64
    wider = building.build(feed_forward_expansion_factor=3)
    assert wider.encoder.conformer_layers[0].first_feed_forward.first_linear.out_features == 48


def test_head_over_transcripts_comes_with_its_criterion():
    with_ctc = building.build("conformer")
    assert with_ctc.encoder.ctc_fc.out_features == 21
    without = building.build("conformer", criterion="label_smoothed_cross_entropy")
    assert not hasattr(without.encoder, "ctc_fc")
    features = torch.randn(1, 20, 6)
    assert without.encoder(features, torch.tensor([20]))["ctc_states"] == []


def test_blank_is_a_symbol_of_the_target_vocabulary_of_the_joint_model_alone():
    tasks = {arch: building.task() for arch in ("conformer", "conformer_joint_ctc")}
    models = {arch: building.build(arch, task) for arch, task in tasks.items()}
    assert "<ctc_blank>" not in tasks["conformer"].target_dictionary
    assert tasks["conformer_joint_ctc"].target_dictionary.index("<ctc_blank>") == 20
    assert models["conformer"].decoder.output_projection.out_features == 20
    assert models["conformer_joint_ctc"].decoder.output_projection.out_features == 21
    assert models["conformer_joint_ctc"].auxiliary_decoder.fc.out_features == 21


def test_building_twice_adds_the_blank_once():
    task = building.task()
    building.build("conformer_joint_ctc", task)
    building.build("conformer_joint_ctc", task)
    assert len(task.target_dictionary) == 21


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ctc_compress_strategy": "avg"}, "--ctc-compress-strategy avg, expected none"),
        (
            {"conformer_conv_kernel_size": 8},
            "--conformer-conv-kernel-size 8, expected an odd number",
        ),
        ({"conv_kernel_sizes": "5,4"}, "--conv-kernel-sizes 5,4, expected odd numbers"),
        ({"conv_expansion_factor": 3}, "--conv-expansion-factor 3, expected 2"),
        ({"ctc_encoder_layer": 0}, "--ctc-encoder-layer 0, expected 1 to 2"),
        ({"ctc_encoder_layer": 3}, "--ctc-encoder-layer 3, expected 1 to 2"),
        ({"encoder_attention_heads": 3}, "--encoder-attention-heads 3: expected a divisor of"),
        ({"decoder_attention_heads": 3}, "--decoder-attention-heads 3: expected a divisor of"),
    ],
)
def test_options_that_would_change_results_are_refused(options, message):
    with pytest.raises(InputError) as caught:
        building.build(**options)
    assert message in str(caught.value)


def test_unsafe_shift_of_published_recipes_is_ignored_with_a_warning(caplog):
    """The published checkpoints were trained with it and would not load otherwise."""
    torch.manual_seed(0)
    safe = building.build().eval()
    assert "relative-shift" not in caplog.text
    model = building.build(batch_unsafe_relative_shift=True).eval()
    assert "--batch-unsafe-relative-shift is ignored" in caplog.text
    model.load_state_dict(safe.state_dict())
    batch = torch.randn(2, 30, 6), torch.tensor([30, 17])
    assert torch.equal(
        model.encoder(*batch)["encoder_out"][0], safe.encoder(*batch)["encoder_out"][0]
    )


def test_ctc_layer_is_checked_only_where_there_is_a_head():
    building.build("conformer", criterion="cross_entropy", ctc_encoder_layer=99)


@pytest.mark.parametrize("layer", [1, 2, 3])
def test_ctc_reads_the_output_of_its_layer(layer):
    model = building.build(encoder_layers=3, ctc_encoder_layer=layer).eval()
    out = model.encoder(torch.randn(2, 30, 6), torch.tensor([30, 20]), return_all_hiddens=True)
    assert len(out["encoder_states"]) == 3
    assert torch.equal(out["encoder_states"][-1], out["encoder_out"][0])
    states = out["encoder_states"][layer - 1]
    assert torch.equal(out["ctc_states"][0], states)
    expected = states @ model.encoder.ctc_fc.weight.t() + model.encoder.ctc_fc.bias
    torch.testing.assert_close(model.encoder.ctc_logits(out), expected)
    assert not torch.allclose(states, out["encoder_states"][layer - 2])


@pytest.mark.parametrize(("n_frames", "steps"), [(1, 1), (4, 1), (5, 2), (8, 2), (30, 8), (31, 8)])
def test_an_encoder_step_covers_four_frames(n_frames, steps):
    encoder = building.build().encoder.eval()
    assert encoder.frames_per_step == 4
    out = encoder(torch.randn(1, n_frames, 6), torch.tensor([n_frames]))
    assert out["encoder_out"][0].shape == (steps, 1, 16)
    assert out["src_lengths"][0].tolist() == [steps]


def test_padding_mask_is_there_when_something_is_padded():
    encoder = building.build().encoder.eval()
    features = torch.randn(2, 16, 6)
    assert encoder(features, torch.tensor([16, 16]))["encoder_padding_mask"] == []
    assert encoder(features, None)["encoder_padding_mask"] == []
    (mask,) = encoder(features, torch.tensor([16, 9]))["encoder_padding_mask"]
    assert mask.tolist() == [[False] * 4, [False] * 3 + [True]]
    (mask,) = encoder(features, torch.tensor([9, 9]))["encoder_padding_mask"]
    assert mask.tolist() == [[False] * 3 + [True]] * 2


def test_too_long_an_utterance_is_refused():
    encoder = building.build().encoder.eval()
    assert encoder.max_positions() == 4 * MAX_STEPS
    with pytest.raises(ValueError, match=f"expected at most {4 * MAX_STEPS}"):
        encoder(torch.zeros(1, 4 * MAX_STEPS + 1, 6), None)


def test_embedding_scale_can_be_left_out():
    scaled, plain = building.build(), building.build(no_scale_embedding=True)
    plain.load_state_dict(scaled.state_dict())
    features = torch.randn(1, 12, 6)
    seen = {}
    for name, model in (("scaled", scaled), ("plain", plain)):
        model.eval().encoder.conformer_layers[0].register_forward_pre_hook(
            lambda _, args, name=name: seen.update({name: args[0]})
        )
        model.encoder(features, None)
    torch.testing.assert_close(seen["scaled"], 4 * seen["plain"])  # sqrt(16)


@pytest.mark.parametrize("half_step", [True, False])
def test_feed_forward_modules_count_half(half_step):
    layer = building.build(conformer_half_step_residual=half_step).encoder.conformer_layers[0]
    assert layer.feed_forward_share == (0.5 if half_step else 1.0)


def test_beams_repeat_every_part_of_the_encoder_output_but_the_states_of_ctc():
    encoder = building.build().encoder.eval()
    features, lengths = torch.randn(3, 30, 6), torch.tensor([30, 21, 8])
    out = encoder(features, lengths, return_all_hiddens=True)
    order = torch.tensor([2, 2, 0])
    again = encoder(features[order], lengths[order], return_all_hiddens=True)
    reordered = encoder.reorder_encoder_out(out, order)
    assert reordered.keys() == out.keys()
    assert torch.equal(reordered["encoder_padding_mask"][0], again["encoder_padding_mask"][0])
    assert torch.equal(reordered["src_lengths"][0], again["src_lengths"][0])
    assert reordered["ctc_states"] == []
    for key in ("encoder_out", "encoder_states"):
        for ours, theirs in zip(reordered[key], again[key], strict=True):
            valid = ~again["encoder_padding_mask"][0].t()
            torch.testing.assert_close(ours[valid], theirs[valid])


def test_auxiliary_logits_follow_the_language():
    """Logits are fc(LayerNorm(encoder output + embedding of the token after eos))."""
    model = building.build().eval()
    out = model.encoder(torch.randn(2, 16, 6), torch.tensor([16, 9]))
    tokens = torch.tensor([[2, 5, 7], [2, 6, 8]])
    logits = model.auxiliary_logits(out, tokens)
    assert logits.shape == (2, 4, 21)
    language = model.decoder.embed_tokens.weight[torch.tensor([5, 6])]
    x = out["encoder_out"][0].transpose(0, 1) + language[:, None]
    x = (x - x.mean(-1, keepdim=True)) / (x.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()
    expected = x @ model.auxiliary_decoder.fc.weight.t()  # norm and bias start at 1 and 0
    torch.testing.assert_close(logits[0], expected[0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(logits[1, :3], expected[1, :3], atol=1e-5, rtol=1e-5)
    assert not logits[1, 3:].any()


def test_published_state_dicts_load_whole():
    """They repeat the position table in every block and hold a placeholder of fairseq's."""
    model, other = building.build(), building.build()
    state = model.state_dict()
    assert not any("positions" in name and "encoder" in name for name in state)
    for number in range(2):
        key = f"encoder.conformer_layers.{number}.attention.positional_encoding.pe"
        state[key] = torch.zeros(1, 10_000, 16)
    state["decoder.embed_positions._float_tensor"] = torch.full((1,), float("nan"))
    other.load_state_dict(state, strict=True)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name


def test_state_dict_without_the_placeholder_loads_too():
    model, other = building.build(), building.build()
    state = model.state_dict()
    state.pop("decoder.embed_positions._float_tensor", None)
    other.load_state_dict(state, strict=True)


def test_state_dict_of_another_model_is_refused():
    model = building.build()
    state = model.state_dict()
    del state["encoder.ctc_fc.weight"]
    with pytest.raises(RuntimeError, match=r"encoder\.ctc_fc\.weight"):
        building.build().load_state_dict(state, strict=True)
