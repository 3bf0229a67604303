"""``fairseq-generate`` with explanation flags, on a model of a few updates."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from fairseq_runs import run_generate

from fbk_xattn.analysis import correlate
from fbk_xattn.cli.main import main
from fbk_xattn.data.manifest import read_manifest
from fbk_xattn.errors import InputError
from fbk_xattn.store import AttributionStore

EXPLAIN = ("--save-cross-attention", "--explain", "input", "encoder", "--num-masks", "20")


def files(store):
    """Return the content of each utterance's file."""
    return {path.name: path.read_bytes() for path in store.glob("*.npz")}


@pytest.fixture(scope="module")
def explained(data, checkpoint, tmp_path_factory):
    """A store with all of the test split, and what the command printed."""
    store = tmp_path_factory.mktemp("stores") / "whole"
    lines = run_generate(data, checkpoint, "--attribution-dir", store, *EXPLAIN)
    return store, lines


def test_every_row_of_the_manifest_is_stored_and_printed(data, explained):
    path, lines = explained
    ids = {row.id for row in read_manifest(data / "test.tsv")}
    assert set(AttributionStore.open(path).ids()) == ids
    assert len([line for line in lines if line.startswith("H-")]) == len(ids)


def test_every_part_has_its_shape(data, explained):
    rows = {row.id: row for row in read_manifest(data / "test.tsv")}
    for attribution in AttributionStore.open(explained[0]):
        row = rows[attribution.id]
        n_tokens, n_steps = len(attribution.tokens), -(-row.n_frames // 4)
        assert attribution.fbank.shape == (row.n_frames, 80)
        assert attribution.cross_attention.shape == (2, 4, n_tokens, n_steps)
        assert attribution.encoder_saliency.shape == (n_tokens, n_steps)
        assert attribution.input_saliency.dense().shape == (n_tokens, row.n_frames, 80)
        assert attribution.tokens[0] == f"<lang:{row.tgt_lang}>"
        assert attribution.tokens[-1] == "</s>"
        assert attribution.tgt_text == row.tgt_text
        assert attribution.frames_per_step == 4


def test_every_row_of_cross_attention_sums_to_1(explained):
    for attribution in AttributionStore.open(explained[0]):
        np.testing.assert_allclose(attribution.cross_attention.sum(-1), 1.0, atol=1e-5)


def test_norms_take_the_place_of_weights(data, checkpoint, explained, tmp_path, capsys):
    flags = ("--save-cross-attention", "--cross-attention", "norms", "--explain", "input")
    masks = ("--num-masks", "20")
    run_generate(data, checkpoint, "--attribution-dir", tmp_path, *flags, *masks)
    weights, norms = AttributionStore.open(explained[0]), AttributionStore.open(tmp_path)
    assert weights.meta["parameters"]["--cross-attention"] == "weights"
    assert norms.meta["parameters"]["--cross-attention"] == "norms"
    assert weights.ids() == norms.ids()
    for one, two in zip(weights, norms, strict=True):
        assert one.tokens == two.tokens
        assert two.cross_attention.shape == one.cross_attention.shape
        assert two.cross_attention.dtype == np.float32
        # Of one head and step, all tokens have the same factor: the norm of the step's vector.
        factors = two.cross_attention / one.cross_attention
        np.testing.assert_allclose(factors.std(axis=2), 0, atol=1e-4 * factors.max())
        assert (np.abs(two.cross_attention.sum(-1) - 1) > 0.01).any()
    assert main(["correlate", str(tmp_path)]) == 0
    assert "input saliency" in capsys.readouterr().out
    # Standardising each step over the tokens takes that factor away; means over heads keep it.
    one, two = (correlate(store, "input").mean for store in (weights, norms))
    np.testing.assert_allclose(one[:-1, :-1], two[:-1, :-1], atol=1e-5)
    assert np.abs(one[:-1, -1] - two[:-1, -1]).max() > 1e-4


def test_a_store_of_weights_takes_no_norms(data, checkpoint, explained):
    flags = ("--attribution-dir", explained[0], *EXPLAIN, "--cross-attention", "norms")
    with pytest.raises(InputError, match="has --cross-attention = weights, this run has norms"):
        run_generate(data, checkpoint, *flags)


def test_saliency_is_that_of_all_masks(explained):
    for attribution in AttributionStore.open(explained[0]):
        levels = attribution.input_saliency.levels
        assert len(levels) == 3
        # 20 masks on three levels are 7, 7 and 6; no segment is occluded more often.
        assert [level.denominator.max() <= n for level, n in zip(levels, (7, 7, 6), strict=True)]
        assert sum(level.denominator.sum() / level.denominator.size for level in levels) == (
            pytest.approx(10, rel=0.1)
        )
        assert attribution.encoder_saliency.max() > 0


def test_the_store_says_what_made_it(checkpoint, explained):
    import hashlib

    parameters = json.loads((explained[0] / "meta.json").read_text())["parameters"]
    assert parameters["--num-masks"] == 20
    assert parameters["checkpoint SHA-256"] == hashlib.sha256(checkpoint.read_bytes()).hexdigest()


def test_again_repeats_no_work_and_prints_the_same(data, checkpoint, explained, monkeypatch):
    from fairseq.sequence_generator import SequenceGenerator

    store, lines = explained
    before = files(store)

    def refuse(*_, **__):
        raise AssertionError("beam search ran although everything is stored")

    monkeypatch.setattr(SequenceGenerator, "generate", refuse)
    again = run_generate(data, checkpoint, "--attribution-dir", store, *EXPLAIN)

    def printed(lines):
        return [line for line in lines if line[:2] in ("T-", "H-", "D-", "P-")]

    assert printed(again) == printed(lines)
    assert files(store) == before


def test_a_run_that_lacks_some_utterances_gives_the_same_files(
    data, checkpoint, explained, tmp_path
):
    whole = files(explained[0])
    for name in sorted(whole)[::2]:
        (tmp_path / name).write_bytes(whole[name])
    shutil.copy(explained[0] / "meta.json", tmp_path)
    run_generate(data, checkpoint, "--attribution-dir", tmp_path, *EXPLAIN)
    assert files(tmp_path) == whole


def test_masks_in_one_pass_change_nothing_but_rounding(data, checkpoint, explained, tmp_path):
    flags = ("--attribution-dir", tmp_path, *EXPLAIN, "--perturbations-per-eval", "3")
    run_generate(data, checkpoint, *flags)
    whole, other = AttributionStore.open(explained[0]), AttributionStore.open(tmp_path)
    assert whole.ids() == other.ids()
    for one, two in zip(whole, other, strict=True):
        for level, again in zip(one.input_saliency.levels, two.input_saliency.levels, strict=True):
            np.testing.assert_array_equal(level.denominator, again.denominator)
            np.testing.assert_allclose(level.numerator, again.numerator, rtol=1e-3, atol=1e-5)


def test_padding_changes_nothing_but_rounding(data, checkpoint, explained, tmp_path):
    run_generate(data, checkpoint, "--attribution-dir", tmp_path, *EXPLAIN, "--batch-size", "1")
    for one, two in zip(
        AttributionStore.open(explained[0]), AttributionStore.open(tmp_path), strict=True
    ):
        assert one.tokens == two.tokens
        np.testing.assert_allclose(one.cross_attention, two.cross_attention, atol=1e-5)
        np.testing.assert_allclose(one.encoder_saliency, two.encoder_saliency, atol=1e-4)


def test_hypotheses_are_those_of_plain_decoding(data, checkpoint, explained):
    plain = run_generate(data, checkpoint)
    hypotheses = [line for line in plain if line.startswith(("H-", "P-"))]
    assert hypotheses == [line for line in explained[1] if line.startswith(("H-", "P-"))]


@pytest.mark.parametrize("beam", [1, 10])
def test_hypotheses_of_any_beam_are_explained_in_batches(data, checkpoint, tmp_path, beam):
    flags = ("--beam", beam, "--batch-size", "5", "--max-tokens", "1000000")
    plain = run_generate(data, checkpoint, *flags)
    lines = run_generate(data, checkpoint, "--attribution-dir", tmp_path, *EXPLAIN, *flags)
    assert len(AttributionStore.open(tmp_path)) == 5
    hypotheses = [line for line in lines if line.startswith("H-")]
    assert hypotheses == [line for line in plain if line.startswith("H-")]


def test_an_empty_hypothesis_is_explained(data, checkpoint, tmp_path):
    run_generate(data, checkpoint, "--attribution-dir", tmp_path, *EXPLAIN, "--max-len-b", "1")
    for attribution in AttributionStore.open(tmp_path):
        assert attribution.tokens == (f"<lang:{attribution.tgt_lang}>", "</s>")
        assert attribution.hypothesis == ""
        assert np.isfinite(attribution.input_saliency.dense()).all()
        assert np.isfinite(attribution.encoder_saliency).all()


def test_no_sentence_is_dropped_without_a_store(data, checkpoint):
    # fairseq's default, --required-batch-size-multiple 8, cuts 5 sentences to 4 in such batches.
    lines = run_generate(data, checkpoint, "--max-tokens", "1000000")
    assert len([line for line in lines if line.startswith("D-")]) == 5


def test_a_store_of_other_parameters_is_refused_and_kept(data, checkpoint, explained):
    store = explained[0]
    before = files(store)
    flags = [*EXPLAIN[:-1], "21"]
    with pytest.raises(InputError, match="--num-masks = 20, this run has 21"):
        run_generate(data, checkpoint, "--attribution-dir", store, *flags)
    assert files(store) == before


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--explain", "input"], "--explain without --attribution-dir"),
        (["--save-cross-attention"], "--save-cross-attention without --attribution-dir"),
        (["--explain", "inputs", "--attribution-dir", "x"], "--explain inputs: expected input or"),
        (["--attribution-dir", "x", "--explain", "input", "--num-masks", "0"], "--num-masks 0"),
        (
            ["--attribution-dir", "x", "--explain", "input", "--input-occlusion-probability", "0"],
            "--input-occlusion-probability 0",
        ),
        (["--gen-subset", "tset"], "tset.tsv: no such manifest.*dev.tsv, test.tsv, train.tsv"),
        (["--prefix-size", "0"], "--prefix-size 0: expected 1"),
        (["--config-yaml", "no.yaml"], "no.yaml: no such data config"),
    ],
)
def test_wrong_flags_are_named(data, checkpoint, tmp_path, monkeypatch, flags, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message):
        run_generate(data, checkpoint, *flags)
    assert not list(tmp_path.iterdir())
