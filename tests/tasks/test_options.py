"""Flags to explainers, and the parameters that a store keeps of them."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path

import pytest

from fbk_xattn.errors import InputError
from fbk_xattn.explain import occlude_encoder_output, occlude_input
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


def test_no_store_no_explanation():
    assert parse() is None


def test_targets_are_explained_once_and_in_one_order():
    options = parse("--attribution-dir", "out", "--explain", "encoder", "input", "encoder")
    assert [explainer.target for explainer in options.explainers()] == ["input", "encoder"]


def test_every_flag_that_changes_numbers_is_a_parameter():
    base = ("--attribution-dir", "out", "--explain", "input", "encoder")
    parameters = parse(*base).parameters()
    for flag, value in {
        "--num-masks": "7",
        "--seed": "2",
        "--input-occlusion-probability": "0.4",
        "--encoder-occlusion-probability": "0.4",
        "--slic-segments-per-second": "100",
        "--slic-cap-seconds": "3",
        "--slic-sigma": "1",
        "--slic-compactness": "1",
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


@pytest.mark.parametrize("flag", ["--slic-cap-seconds", "--slic-segments-per-second"])
def test_nonsense_for_segmentation_is_refused(flag):
    with pytest.raises(InputError, match="expected more than 0"):
        parse("--attribution-dir", "out", "--explain", "input", flag, "0")
