"""The scripts that measure run, on next to nothing; what they measure here means nothing."""

import re
import sys

import pytest

from scripts import benchmark_training, compare_precision

SMALL = ["--encoder-layers", "1", "--decoder-layers", "1"]


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_training_is_compared_with_that_of_fairseq(monkeypatch, capsys, dtype):
    flags = (
        "--max-tokens 2100 --batches 2 --update-freq 1 --rounds 2 --dim 16 --heads 2 "
        f"--vocabulary-size 30 --dtype {dtype}"
    )
    monkeypatch.setattr(sys, "argv", ["benchmark_training", *SMALL, *flags.split()])
    benchmark_training.main()
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")][2:]
    assert [row.split("|")[1].strip() for row in rows] == list(benchmark_training.SYSTEMS)
    ratios = [float(re.search(r"([\d.]+) \(", row)[1]) for row in rows]
    assert ratios[0] == 1
    assert all(ratio > 0 for ratio in ratios)


def test_loss_curves_of_precisions_begin_at_the_same_loss(data, monkeypatch, capsys):
    flags = (
        "--updates 10 --ctc-encoder-layer 1 --encoder-embed-dim 16 --decoder-ffn-embed-dim 32 "
        "--encoder-attention-heads 2 --decoder-attention-heads 2 --conv-channels 16 "
        "--max-tokens 300 --num-workers 0 --dropout 0"
    )
    monkeypatch.setattr(sys, "argv", ["compare_precision", str(data), *SMALL, *flags.split()])
    compare_precision.main()
    rows = [line.split("|")[1:-1] for line in capsys.readouterr().out.splitlines() if "|" in line]
    assert [cell.strip() for cell in rows[0][1:]] == list(compare_precision.RUNS)
    first = [float(cell) for cell in rows[2][1:]]
    bf16 = first[list(compare_precision.RUNS).index("bf16")]
    assert bf16 == pytest.approx(first[0], rel=0.02)
    assert len(rows) == 2 + compare_precision.STRETCHES + 3
    assert {cell.strip() for cell in rows[-1][1:]} == {"0"}


def test_skipped_updates_are_counted_and_not_averaged(capsys):
    curve = [4.0, 2.0] * compare_precision.STRETCHES
    skipped = [float("nan"), *curve[1:]]
    compare_precision.print_table({"fp32": curve, "fp16": skipped})
    rows = [line.split("|")[1:-1] for line in capsys.readouterr().out.splitlines()]
    assert [cell.strip() for cell in rows[2]] == ["1 to 2", "3.000", "2.000"]
    assert [cell.strip() for cell in rows[-1]] == ["skipped updates", "0", "1"]


def test_fewer_updates_than_the_table_has_stretches_are_refused(data, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["compare_precision", str(data), "--updates", "9"])
    with pytest.raises(SystemExit):
        compare_precision.main()
    assert capsys.readouterr().err.endswith("--updates 9: expected at least 10, one a stretch\n")
