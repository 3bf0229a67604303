"""Utterances, masks and models at their limits."""

import building
import numpy as np
import pytest
import torch
from golden import published
from synthetic import make_attribution

from fbk_xattn.analysis.maps import saliency_map
from fbk_xattn.explain import (
    INPUT_SEGMENTERS,
    SCORERS,
    Cells,
    EncoderSteps,
    Explainer,
    Frames,
    JointExplainer,
    MaskSampler,
    SlicPyramid,
    Utterance,
    kl_divergence,
    occlude_encoder_output,
    occlude_input,
    token_saliency,
)
from fbk_xattn.store import AttributionStore, SegmentLevel, SegmentSaliency

EOS, TAG = 2, 4


@torch.no_grad()
def decoded(model, features, tokens):
    """Return an utterance with ``tokens`` as its hypothesis."""
    inputs = torch.tensor([EOS, *tokens[:-1]])
    encoder_out = model.encoder(
        src_tokens=features[None], src_lengths=torch.tensor([len(features)])
    )
    logits = model.decoder(inputs[None], encoder_out=encoder_out)[0][0]
    return Utterance("a", features, encoder_out["encoder_out"][0][:, 0], inputs, logits)


def speech(n_frames, n_bins=80):
    generator = torch.Generator().manual_seed(n_frames)
    return torch.randn(n_frames, n_bins, generator=generator)


def methods(probability=0.5, scorer=kl_divergence, segmenter=None):
    """Return the method of each target, that of the input with the saliency of tokens."""
    spes = Explainer(
        "input", segmenter or SlicPyramid(), MaskSampler(probability), occlude_input, scorer
    )
    sampler = MaskSampler(probability)
    return [
        JointExplainer(spes, MaskSampler(0.5)),
        Explainer("encoder", EncoderSteps(), sampler, occlude_encoder_output, scorer),
    ]


def stored(folder, model, utterance, n_masks, explainers):
    """Explain, and return the utterance as a reader of the store gets it."""
    scores = {e.target: e.explain(model, utterance, n_masks, 1, 4) for e in explainers}
    compact = {
        target: SegmentSaliency(
            tuple(
                SegmentLevel(level.labels.astype(np.uint32), level.numerator, level.denominator)
                for level in levels
            )
        )
        for target, levels in scores.items()
    }
    tokens = tuple(f"w{token}" for token in utterance.tokens.tolist())
    S, T = len(tokens), len(utterance.features)
    attribution = make_attribution(
        np.random.default_rng(0),
        S=S,
        T=T,
        F=utterance.features.shape[1],
        tokens=tokens,
        n_prefix=min(1, S - 1),
        fbank=utterance.features.numpy(),
        input_saliency=compact["input"],
        encoder_saliency=compact["encoder"].dense(),
        token_saliency=token_saliency(scores["input"]),
    )
    with AttributionStore.create(folder, {"--num-masks": n_masks}) as store:
        store.write(attribution)
        return store.read(attribution.id)


def check(attribution):
    """Assert that every map is a number everywhere, as it is stored and as it is analysed."""
    S, T = len(attribution.tokens), len(attribution.fbank)
    assert attribution.input_saliency.dense().shape == (S, *attribution.fbank.shape)
    assert attribution.encoder_saliency.shape == (S, -(-T // 4))
    assert attribution.token_saliency.shape == (S, S)
    for target in ("input", "encoder"):
        for aggregation in ("2d-max", "2d-avg", "1d-max-1d-avg"):
            saliency = saliency_map(attribution, target, aggregation)
            assert saliency.shape == (max(S - 2, 0), -(-T // 4))
            assert np.isfinite(saliency).all()
    for saliency in (
        attribution.input_saliency.dense(),
        attribution.encoder_saliency,
        attribution.token_saliency,
    ):
        assert np.isfinite(saliency).all()


@pytest.fixture
def model():
    return published.load()[0]


@pytest.mark.parametrize(
    ("n_frames", "n_tokens", "n_masks"),
    [(20, 5, 6), (20, 1, 3), (6000, 2, 2), (166, 300, 4), (166, 1, 9), (1, 2, 5)],
)
def test_speech_and_hypotheses_of_any_length(model, tmp_path, n_frames, n_tokens, n_masks):
    tokens = [TAG, *(5 + n % 200 for n in range(n_tokens)), EOS][-n_tokens:]
    utterance = decoded(model, speech(n_frames), tokens)
    assert utterance.tokens.tolist() == tokens
    attribution = stored(tmp_path, model, utterance, n_masks, methods())
    check(attribution)
    assert attribution.input_saliency.dense().max() > 0
    assert attribution.encoder_saliency.max() > 0


@pytest.mark.parametrize("n_masks", [1, 2])
def test_levels_without_masks_leave_the_map_to_the_others(model, tmp_path, n_masks):
    utterance = decoded(model, speech(60), [TAG, 9, 10, EOS])
    attribution = stored(tmp_path, model, utterance, n_masks, methods())
    check(attribution)
    levels = attribution.input_saliency.levels
    assert [level.denominator.any() for level in levels] == [n < n_masks for n in range(3)]
    only = SegmentSaliency(levels[:n_masks]).dense()
    assert np.array_equal(attribution.input_saliency.dense(), only)


def test_one_segment_is_occluded_or_not(model, tmp_path):
    utterance = decoded(model, speech(60), [TAG, 9, 10, EOS])
    one = SlicPyramid(segments_per_second=(1e-3,))
    attribution = stored(tmp_path, model, utterance, 8, methods(segmenter=one))
    check(attribution)
    (level,) = attribution.input_saliency.levels
    assert level.numerator.shape == (4, 1)
    assert 0 < level.denominator.item() < 8
    dense = attribution.input_saliency.dense()
    assert (dense == dense[:, :1, :1]).all()


@pytest.mark.parametrize("scorer", SCORERS.values(), ids=SCORERS)
def test_probability_1_scores_what_is_left_without_any_speech(model, tmp_path, scorer):
    utterance = decoded(model, speech(60), [TAG, 9, 10, EOS])
    both = methods(probability=1, scorer=scorer)
    attribution = stored(tmp_path, model, utterance, 6, [both[0].explainer, both[1]])
    for explainer, dense in zip(
        both,
        (attribution.input_saliency.dense(), attribution.encoder_saliency[:, :, None]),
        strict=True,
    ):
        explainer = getattr(explainer, "explainer", explainer)
        n_cells = {"input": 60 * 80, "encoder": 15}[explainer.target]
        with torch.no_grad():
            logits = explainer.occluder(model, utterance, torch.ones(1, n_cells).bool())
        score = scorer(utterance, logits)[0].numpy()
        np.testing.assert_allclose(dense, dense[:, :1, :1] + np.zeros_like(dense))
        np.testing.assert_allclose(dense[:, 0, 0], score, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("value", [0.0, -3.0])
def test_a_constant_spectrogram(model, tmp_path, value):
    utterance = decoded(model, torch.full((60, 80), value), [TAG, 9, 10, EOS])
    check(stored(tmp_path, model, utterance, 9, methods()))
    if value == 0:  # what occlusion sets cells to
        for level in methods()[0].explainer.explain(model, utterance, 9, 1, 4):
            assert abs(level.numerator).max() < 1e-4


@pytest.mark.parametrize("name", INPUT_SEGMENTERS)
@pytest.mark.parametrize("scorer", SCORERS.values(), ids=SCORERS)
def test_every_segmentation_goes_with_every_scorer(model, tmp_path, name, scorer):
    utterance = decoded(model, speech(60), [TAG, 9, 10, EOS])
    explainers = methods(scorer=scorer, segmenter=INPUT_SEGMENTERS[name]())
    attribution = stored(tmp_path, model, utterance, 9, explainers)
    check(attribution)
    dense = attribution.input_saliency.dense()
    assert abs(dense).max() > 0
    if name == "frame":
        assert (dense == dense[:, :, :1]).all()
    if name == "band":
        assert (dense == dense[:, :1]).all()


def test_cells_of_ten_seconds_keep_their_numbers_in_the_store(model, tmp_path):
    """80,000 segments: more than 16 bits can number."""
    utterance = decoded(model, speech(1000), [TAG, 9, EOS])
    attribution = stored(tmp_path, model, utterance, 2, methods(segmenter=Cells()))
    (level,) = attribution.input_saliency.levels
    assert level.labels.dtype == np.uint32
    assert np.array_equal(level.labels.ravel(), np.arange(80_000))
    assert level.numerator.shape == (3, 80_000)
    check(attribution)
    assert (tmp_path / "a%2F1.npz").stat().st_size < 10e6


@pytest.mark.parametrize("target", ["input", "encoder", "tokens"])
def test_maps_do_not_depend_on_the_number_of_masks_at_a_time(model, target):
    utterance = published.utterance_of(0)
    joint, encoder = methods(segmenter=Frames())

    def explain(at_a_time):
        (level,) = (encoder if target == "encoder" else joint).explain(
            model, utterance, 130, 3, at_a_time
        )
        if target == "tokens":
            return level.token_numerator, level.token_denominator
        return level.numerator, level.denominator

    numerator, denominator = explain(1000)
    for at_a_time in (7, 64):
        again, counts = explain(at_a_time)
        assert np.array_equal(counts, denominator)
        np.testing.assert_allclose(again, numerator, rtol=1e-4, atol=1e-4)
    repeated, _ = explain(1000)
    assert np.array_equal(repeated, numerator)


S2T_TRANSFORMER = {
    "conv_channels": 12,
    "encoder_embed_dim": 16,
    "encoder_ffn_embed_dim": 32,
    "encoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_layers": 2,
    "decoder_attention_heads": 2,
}


@torch.no_grad()
@pytest.mark.parametrize(
    ("arch", "options"),
    [
        ("s2t_transformer", S2T_TRANSFORMER),
        ("s2t_transformer", {**S2T_TRANSFORMER, "share_decoder_input_output_embed": True}),
        ("conformer", {"criterion": "label_smoothed_cross_entropy"}),
    ],
)
def test_models_without_ctc_heads_are_explained(tmp_path, arch, options):
    torch.manual_seed(0)
    model = building.build(arch, None, **{"input_feat_per_channel": 80, **options}).eval()
    utterance = decoded(model, speech(50), [TAG, 9, 10, EOS])
    occluded = torch.rand(3, 50 * 80, generator=torch.Generator().manual_seed(1)) < 0.5
    logits = occlude_input(model, utterance, occluded)
    for mask, ours in zip(occluded, logits, strict=True):
        features = utterance.features * (~mask).view(50, 80)
        alone = decoded(model, features, [TAG, 9, 10, EOS]).logits
        torch.testing.assert_close(ours, alone, atol=1e-5, rtol=1e-5)
    hidden = torch.rand(3, 13, generator=torch.Generator().manual_seed(1)) < 0.5
    logits = occlude_encoder_output(model, utterance, hidden)
    for mask, ours in zip(hidden, logits, strict=True):
        states = (utterance.encoder_out * (~mask)[:, None])[:, None]
        encoder_out = {"encoder_out": [states], "encoder_padding_mask": []}
        alone = model.decoder(utterance.prev_output_tokens[None], encoder_out=encoder_out)[0][0]
        torch.testing.assert_close(ours, alone, atol=1e-5, rtol=1e-5)
    check(stored(tmp_path, model, utterance, 9, methods()))
