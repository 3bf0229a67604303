"""The scripts that measure explanations run, on next to nothing, and compare like with like."""

import re
import sys

import numpy as np
import pytest
from golden import published

from fbk_xattn.tasks.attribution_run import segment_saliency
from scripts import benchmark_explain, benchmark_generate
from scripts.explanation_models import default_explainers
from scripts.gemm_floor import flops_per_mask
from scripts.published_way import PublishedWay


def rows_of(text):
    """Return the cells of a table, without its head."""
    rows = [line.split("|")[1:-1] for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in row] for row in rows[2:]]


@pytest.mark.parametrize("target", ["input", "encoder"])
def test_the_published_way_gives_our_maps(target):
    model, _, _ = published.load()
    utterance = published.utterance_of(0)
    explainer = default_explainers([target])[target]
    levels = explainer.segmenter(utterance)
    way = PublishedWay(model, utterance, levels, explainer.sampler, seed=3, batch_size=5)
    theirs = way.explain(target, 13).squeeze()
    ours = segment_saliency(explainer.explain(model, utterance, 13, 3, 13)).dense()
    np.testing.assert_allclose(theirs, ours.squeeze(), rtol=1e-3, atol=1e-5)


def test_speed_is_compared_with_the_published_way(monkeypatch, capsys):
    flags = (
        "--preset tiny --cpu --frames 60 --tokens 4 --precision fp32 bf16 --num-masks 9 "
        "--baseline --baseline-masks 5 --baseline-batch 2 --rounds 2"
    )
    monkeypatch.setattr(sys, "argv", ["benchmark_explain", *flags.split()])
    benchmark_explain.main()
    text = capsys.readouterr().out
    assert (
        "tiny, T 60, S 4, V 65, N 9 (baseline 5), batch input 333, encoder 333 (baseline 2)"
        in text.splitlines()[0]
    )
    rows = rows_of(text)
    systems = ["baseline, fp32", "ours, fp32", "ours, bf16"]
    assert [row[:2] for row in rows] == [[t, s] for t in ("input", "encoder") for s in systems]
    assert [row[3].startswith("1.00 (1.00 ") for row in rows[::3]] == [True, True]
    assert all(float(row[2].replace(",", "")) > 0 for row in rows)
    assert {row[5] for row in rows} == {"-"}


def test_floor_counts_what_runs_for_each_mask():
    model, _, _ = published.load()
    utterance = published.utterance_of(0)
    n_steps, n_tokens = len(utterance.encoder_out), len(utterance.logits)
    decoder = flops_per_mask(model, utterance, "encoder") / 2 / n_tokens
    dim, n_symbols, layers = 64, utterance.logits.shape[1], 3
    inner = model.decoder.layers[0].fc1.out_features
    # Self-attention has four matrices, and of cross-attention two run for each token.
    assert decoder == pytest.approx(
        layers * (6 * dim**2 + 2 * inner * dim) + n_symbols * dim, rel=0.03
    )
    rest = flops_per_mask(model, utterance, "input") / 2 - decoder * n_tokens
    ctc = sum(p.numel() for p in model.encoder.ctc_fc.parameters())
    encoder = sum(p.numel() for p in model.encoder.parameters()) - ctc
    positions = 4 * dim**2
    assert rest == pytest.approx(n_steps * (encoder - positions + layers * 2 * dim**2), rel=0.01)


def test_precisions_are_compared_on_decoded_utterances(monkeypatch, capsys):
    flags = (
        f"--compare-precision --checkpoint {published.CHECKPOINT} --cpu "
        f"--data {published.FOLDER / 'data'} --limit 2 --beam 2 --num-masks 6 --other-masks "
        "--precision bf16"
    )
    monkeypatch.setattr(sys, "argv", ["benchmark_explain", *flags.split()])
    benchmark_explain.main()
    rows = rows_of(capsys.readouterr().out)
    assert [row[:2] for row in rows] == [
        [target, name] for target in ("input", "encoder") for name in ("bf16", "fp32, other masks")
    ]
    for precision, other in (rows[:2], rows[2:]):
        assert float(precision[3]) > 0.8
        assert float(precision[3]) > float(other[3])
        assert re.fullmatch(r"en-\S+, token \d+", precision[5])


def test_end_to_end_is_compared_with_the_loop(monkeypatch, capsys):
    flags = (
        "--preset tiny --cpu --utterances 3 --seconds 0.5 1 --num-masks 6 --loop-masks 6 "
        "--processes 1 --no-progress-bar"
    )
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(sys, "argv", ["benchmark_generate", *flags.split()])
    benchmark_generate.main()
    text = capsys.readouterr().out
    assert "3 utterances of 0.5 to 1 s, 2 s of speech" in text
    assert "36 masks" in text
    ((processes, wall, ratio, *_),) = rows_of(text)
    assert (processes, ratio) == ("1", "1.00")
    assert float(wall.removesuffix(" s")) > 1


def test_a_failing_run_shows_its_last_words(monkeypatch):
    flags = ["--preset", "tiny", "--cpu", "--utterances", "1", "--num-masks", "0"]
    monkeypatch.setattr(sys, "argv", ["benchmark_generate", *flags])
    with pytest.raises(SystemExit, match="--num-masks 0: expected at least 1"):
        benchmark_generate.main()


def test_random_weights_are_no_ground_for_comparing_precisions(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["benchmark_explain", "--compare-precision"])
    with pytest.raises(SystemExit):
        benchmark_explain.main()
    assert "--checkpoint" in capsys.readouterr().err
