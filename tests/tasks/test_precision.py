"""``--explanation-precision``: the flag, what the store keeps of it, and maps in each precision."""

from __future__ import annotations

from argparse import ArgumentParser

import numpy as np
import pytest
import torch
from fairseq_runs import run_generate
from golden import published

from fbk_xattn.errors import InputError
from fbk_xattn.explain import SCORERS, kl_divergence
from fbk_xattn.store import AttributionStore
from fbk_xattn.tasks.options import ExplanationOptions, add_explanation_args

FLAGS = (
    "--explain", "input", "encoder", "--num-masks", "40", "--slic-segments-per-second", "100",
    "--max-tokens", "2000",
)  # fmt: skip


def parse(*flags, cpu=False):
    parser = ArgumentParser()
    add_explanation_args(parser)
    parser.set_defaults(seed=1, cpu=cpu)
    store = ("--attribution-dir", "out", "--explain", "input")
    return ExplanationOptions.from_args(parser.parse_args([*store, *flags]))


@pytest.mark.parametrize(
    ("name", "dtype"),
    [("fp32", torch.float32), ("fp16", torch.float16), ("bf16", torch.bfloat16)],
)
def test_each_precision_is_that_of_copies_and_a_parameter(name, dtype):
    options = parse("--explanation-precision", name)
    assert options.dtype == dtype
    assert options.parameters()["--explanation-precision"] == name


@pytest.mark.parametrize(
    ("has_gpu", "cpu", "meant"),
    [(False, False, "fp32"), (False, True, "fp32"), (True, True, "fp32"), (True, False, "fp16")],
)
def test_auto_is_half_precision_on_a_gpu_alone(monkeypatch, has_gpu, cpu, meant):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    for flags in ((), ("--explanation-precision", "auto")):
        options = parse(*flags, cpu=cpu)
        assert options.explanation_precision == meant
        assert options.parameters()["--explanation-precision"] == meant


@pytest.mark.parametrize("name", ["fp64", "FP16", "float16", ""])
def test_others_are_refused_in_one_line(name):
    with pytest.raises(InputError) as error:
        parse("--explanation-precision", name)
    assert str(error.value) == (
        f"--explanation-precision {name}: expected auto, fp32, fp16 or bf16"
    )


def explain(folder, *flags):
    """Explain the published model, and return the store."""
    data = published.FOLDER / "data"
    run_generate(data, published.CHECKPOINT, "--attribution-dir", folder, *FLAGS, *flags)
    return AttributionStore.open(folder)


@pytest.fixture(scope="module")
def exact(tmp_path_factory):
    """A store of what a CPU does when no flag says otherwise."""
    return explain(tmp_path_factory.mktemp("stores") / "exact")


def maps(attribution):
    return attribution.input_saliency.dense(), attribution.encoder_saliency


def test_half_precision_on_a_cpu_gives_nearly_the_maps_of_fp32(exact, tmp_path):
    half = explain(tmp_path, "--explanation-precision", "bf16")
    assert exact.meta["parameters"]["--explanation-precision"] == "fp32"
    assert half.meta["parameters"]["--explanation-precision"] == "bf16"
    assert half.ids() == exact.ids()
    for ours, theirs in zip(half, exact, strict=True):
        assert ours.tokens == theirs.tokens
        # Hypotheses are not what the precision is of.
        assert np.array_equal(ours.positional_scores, theirs.positional_scores)
        for one, two in zip(maps(ours), maps(theirs), strict=True):
            assert not np.array_equal(one, two)
            np.testing.assert_allclose(one, two, atol=0.04 * two.max())
            assert np.corrcoef(one.ravel(), two.ravel())[0, 1] > 0.99
        for one, two in zip(ours.input_saliency.levels, theirs.input_saliency.levels, strict=True):
            assert np.array_equal(one.denominator, two.denominator)


def test_a_store_in_another_precision_is_refused(exact):
    with pytest.raises(InputError, match="has --explanation-precision = fp32, this run has bf16"):
        explain(exact.path, "--explanation-precision", "bf16")


@pytest.mark.parametrize(
    ("value", "precision", "cure"),
    [(np.inf, "fp32", ""), (np.nan, "bf16", "; fp32 has a larger range")],
)
def test_scores_that_are_no_numbers_fail_their_utterance_and_name_the_flag(
    exact, tmp_path, monkeypatch, value, precision, cure
):
    bad = exact.ids()[1]

    def scorer(utterance, logits):
        scores = kl_divergence(utterance, logits)
        if utterance.id == bad:
            scores[0, -1] = value
        return scores

    monkeypatch.setitem(SCORERS, "kl", scorer)
    with pytest.raises(SystemExit) as stop:
        explain(tmp_path, "--explanation-precision", precision)
    assert stop.value.code == (
        f"fbk_xattn: error: 1 of 6 utterances failed, first {bad!r}: ValueError: input saliency "
        f"has infinite or undefined scores with --explanation-precision {precision}, expected "
        f"finite ones{cure}"
    )
    assert AttributionStore.open(tmp_path).ids() == [i for i in exact.ids() if i != bad]
