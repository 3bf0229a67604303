"""Flags to explainers, and the parameters that a store keeps of them."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path

import pytest
from golden import published

from fbk_xattn.errors import InputError
from fbk_xattn.explain import (
    Bands,
    Cells,
    Frames,
    JointExplainer,
    SlicPyramid,
    kl_divergence,
    occlude_encoder_output,
    occlude_input,
    probability_difference,
)
from fbk_xattn.generation.recorder import CrossAttentionNormRecorder, CrossAttentionRecorder
from fbk_xattn.tasks.options import ExplanationOptions, add_explanation_args


def parse(*flags):
    parser = ArgumentParser()
    add_explanation_args(parser)
    parser.add_argument("--seed", type=int, default=1)
    return ExplanationOptions.from_args(parser.parse_args(flags))


def test_defaults_are_those_of_the_paper():
    options = parse("--attribution-dir", "out", "--explain", "input", "encoder")
    spes, encoder = options.explainers()
    assert (options.num_masks, options.attribution_dir) == (20_000, Path("out"))
    assert (spes.sampler.probability, encoder.sampler.probability) == (0.5, 0.7)
    assert spes.segmenter.segments_per_second == (400, 500, 600)
    assert (spes.segmenter.cap_seconds, spes.segmenter.sigma) == (7.5, 0)
    assert spes.segmenter.compactness == 0.1
    assert (spes.occluder, encoder.occluder) == (occlude_input, occlude_encoder_output)
    assert spes.scorer is encoder.scorer is kl_divergence


def test_no_store_no_explanation():
    assert parse() is None


def test_targets_are_explained_once_and_in_one_order():
    options = parse("--attribution-dir", "out", "--explain", "encoder", "input", "encoder")
    assert [explainer.target for explainer in options.explainers()] == ["input", "encoder"]


@pytest.mark.parametrize("store", [(), ("--attribution-dir", "out", "--save-cross-attention")])
def test_flags_of_explanations_need_one(store):
    with pytest.raises(InputError, match=r"^--num-masks 7 without --explain TARGET: expected both"):
        parse(*store, "--num-masks", "7")


def test_every_flag_that_changes_numbers_is_a_parameter():
    base = ("--attribution-dir", "out", "--save-cross-attention", "--explain", "input", "encoder")
    parameters = parse(*base).parameters()
    for flag, value in {
        "--cross-attention": "norms",
        "--num-masks": "7",
        "--seed": "2",
        "--input-occlusion-probability": "0.4",
        "--encoder-occlusion-probability": "0.4",
        "--slic-segments-per-second": "100",
        "--slic-cap-seconds": "3",
        "--slic-sigma": "1",
        "--slic-compactness": "1",
        "--previous-token-occlusion-probability": "0.1",
        "--scorer": "probability",
    }.items():
        changed = parse(*base, flag, value).parameters()
        assert {name for name in changed if changed[name] != parameters[name]} == {flag}


def test_what_changes_speed_alone_is_no_parameter():
    base = ("--attribution-dir", "out", "--explain", "input")
    assert parse(*base).parameters() == parse(*base, "--perturbations-per-eval", "9").parameters()


def test_parameters_of_other_targets_are_left_out():
    parameters = parse("--attribution-dir", "out", "--explain", "encoder").parameters()
    assert "--slic-sigma" not in parameters
    assert "--input-occlusion-probability" not in parameters
    assert "--input-segmentation" not in parameters
    assert "--previous-token-occlusion-probability" not in parameters
    assert parameters["--scorer"] == "kl"


def test_cross_attention_is_recorded_as_the_flag_says():
    decoder = published.load()[0].decoder
    store = ("--attribution-dir", "out")
    assert parse(*store).recorder(decoder) is None
    assert "--cross-attention" not in parse(*store).parameters()
    for flags, kind in (
        ((), CrossAttentionRecorder),
        (("--cross-attention", "weights"), CrossAttentionRecorder),
        (("--cross-attention", "norms"), CrossAttentionNormRecorder),
    ):
        options = parse(*store, "--save-cross-attention", *flags)
        assert type(options.recorder(decoder)) is kind
        assert options.parameters()["--cross-attention"] == (flags or ("", "weights"))[1]


BASE = ("--attribution-dir", "out", "--explain", "input")


@pytest.mark.parametrize(
    ("name", "segmenter"),
    [("slic", SlicPyramid()), ("cell", Cells()), ("frame", Frames()), ("band", Bands())],
)
def test_the_segmentation_is_chosen_by_its_name(name, segmenter):
    options = parse(*BASE, "--input-segmentation", name)
    (explainer,) = options.explainers()
    assert explainer.segmenter == segmenter
    parameters = options.parameters()
    assert parameters["--input-segmentation"] == name
    assert ("--slic-sigma" in parameters) == (name == "slic")


def test_the_scorer_is_that_of_every_target():
    options = parse(*BASE, "encoder", "--scorer", "probability")
    assert {e.scorer for e in options.explainers()} == {probability_difference}


def test_previous_tokens_are_occluded_along_with_the_input_when_asked():
    spes = parse(*BASE, "encoder").explainers()[0]
    flags = ("--previous-token-occlusion-probability", "0.4")
    joint, encoder = parse(*BASE, "encoder", *flags).explainers()
    assert isinstance(joint, JointExplainer)
    assert joint.explainer == spes
    assert joint.token_sampler.probability == 0.4
    assert (joint.target, encoder.target) == ("input", "encoder")


@pytest.mark.parametrize("name", ["input", "encoder", "previous-token"])
def test_probability_1_is_one(name):
    parse(*BASE, "--explain", "input", "encoder", f"--{name}-occlusion-probability", "1")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--slic-cap-seconds", "0"), "--slic-cap-seconds 0.0: expected more than 0"),
        (
            ("--slic-segments-per-second", "400", "0"),
            "--slic-segments-per-second 400.0 0.0: expected more than 0",
        ),
        (("--slic-compactness", "nan"), "--slic-compactness nan: expected more than 0"),
        (("--slic-sigma", "-1"), "--slic-sigma -1.0: expected 0 or more"),
        (
            ("--input-segmentation", "cell", "--slic-sigma", "3"),
            "--slic-sigma 3.0 with --input-segmentation cell: expected --input-segmentation slic",
        ),
        (("--scorer", "KL"), "--scorer KL: expected kl or probability"),
        (
            ("--save-cross-attention", "--cross-attention", "norm"),
            "--cross-attention norm: expected weights or norms",
        ),
        (
            ("--cross-attention", "norms"),
            "--cross-attention norms without --save-cross-attention: expected both, as none is "
            "stored otherwise",
        ),
        (
            ("--input-segmentation", "word"),
            "--input-segmentation word: expected slic, cell, frame or band",
        ),
        (
            ("--input-occlusion-probability", "0"),
            "--input-occlusion-probability 0.0: expected more than 0 and at most 1, as without "
            "occlusion there is nothing to see",
        ),
        (
            ("--explain", "encoder", "--encoder-occlusion-probability", "nan"),
            "--encoder-occlusion-probability nan: expected more than 0 and at most 1, as without "
            "occlusion there is nothing to see",
        ),
        (
            ("--previous-token-occlusion-probability", "1.5"),
            "--previous-token-occlusion-probability 1.5: expected 0 (none is occluded) to 1",
        ),
        (
            ("--previous-token-occlusion-probability", "nan"),
            "--previous-token-occlusion-probability nan: expected 0 (none is occluded) to 1",
        ),
        (
            ("--explain", "encoder", "--previous-token-occlusion-probability", "0.1"),
            "--previous-token-occlusion-probability 0.1 without --explain input: expected both, as "
            "it would change nothing",
        ),
        (
            ("--encoder-occlusion-probability", "0.2"),
            "--encoder-occlusion-probability 0.2 without --explain encoder: expected both, as it "
            "would change nothing",
        ),
        (
            ("--explain", "encoder", "--slic-sigma", "3"),
            "--slic-sigma 3.0 without --explain input: expected both, as it would change nothing",
        ),
    ],
)
def test_nonsense_is_refused_in_one_line(flags, message):
    with pytest.raises(InputError) as error:
        parse(*BASE, *flags)
    assert str(error.value) == message
