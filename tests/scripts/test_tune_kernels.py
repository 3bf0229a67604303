"""Tiles are compared in turns, and the fastest stays set."""

import sys

import pytest
import torch

from scripts import tune_kernels
from scripts.tune_kernels import CANDIDATES, Trial, candidates, compare, row

SPEED = {16: 100.0, 32: 150.0, 64: 120.0}


class DoesNotFitError(Exception):
    """Of a tile with 128 rows."""


@pytest.fixture
def measured():
    """Give a tile, and a measurement that notes which one was set and slows down by and by."""
    tile, seen = {"ROWS": 16, "num_warps": 4}, []

    def rate():
        if tile["ROWS"] == 128:
            raise DoesNotFitError
        seen.append(tile["ROWS"])
        return SPEED[tile["ROWS"]] / len(seen)

    return tile, seen, rate


def test_the_fastest_tile_stays_set(measured):
    tile, seen, rate = measured
    variants = [{"ROWS": rows, "num_warps": 4} for rows in (16, 64, 128, 32)]
    trials = compare(tile, variants, rate, 3, DoesNotFitError)
    assert tile == {"ROWS": 32, "num_warps": 4}
    assert seen == [16, 64, 32] * 4
    assert [len(trial.rates) for trial in trials] == [3, 3, 0, 3]
    assert row("swish", trials[2], trials[0]) == (
        "| swish | ROWS 128, num_warps 4 | does not fit | - |"
    )


def test_ratios_are_those_of_a_round():
    first, other = Trial({"ROWS": 16}, [100.0, 50.0, 10.0]), Trial({"ROWS": 32}, [110.0, 55.0, 9.0])
    assert row("gated", other, first) == "| gated | ROWS 32 | 55 | 1.100 |"


@pytest.mark.parametrize("kernel", CANDIDATES)
def test_the_tile_in_the_code_comes_first_and_once(kernel):
    names, sizes = CANDIDATES[kernel]
    own = dict(zip(names, sizes[1], strict=True))
    tried = candidates(kernel, own)
    assert tried[0] == own
    assert tried.count(own) == 1
    assert len(tried) == len(sizes)


def test_without_a_gpu_it_says_so(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["tune_kernels"])
    with pytest.raises(SystemExit, match="no CUDA device, expected one"):
        tune_kernels.main()


@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_tiles_in_the_code_have_what_candidates_have(precision):
    pytest.importorskip("triton")
    assert {name: tuple(tile) for name, tile in tune_kernels.tiles(precision).items()} == {
        name: names for name, (names, _) in CANDIDATES.items()
    }


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_every_tile_has_a_row(monkeypatch, capsys):
    flags = "--preset tiny --frames 60 --tokens 4 --num-masks 9 --rounds 1 --kernels depthwise"
    monkeypatch.setattr(sys, "argv", ["tune_kernels", *flags.split()])
    tune_kernels.main()
    assert capsys.readouterr().out.count("| depthwise |") == len(CANDIDATES["depthwise"][1])
