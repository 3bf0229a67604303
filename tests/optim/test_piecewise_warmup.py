"""The schedule against recorded values of the published system."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from fbk_xattn.errors import InputError
from fbk_xattn.optim.piecewise_warmup import PiecewiseWarmup, PiecewiseWarmupConfig

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "piecewise_warmup.json").read_text())


@pytest.fixture
def optimizer():
    import torch
    from fairseq.optim.adam import FairseqAdam

    flags = {"lr": [1.0], "adam_betas": [0.9, 0.98], "adam_eps": 1e-8, "weight_decay": 0.0}
    config = OmegaConf.create({**flags, "fp16_adam_stats": False, "tpu": False})
    return FairseqAdam(config, [torch.nn.Parameter(torch.zeros(1))])


def schedule(optimizer, **flags):
    defaults = {"warmup_updates": 50, "intermediate_warmup_updates": 25, "intermediate_lr": 0.1}
    values = {"lr": [1.0], "warmup_init_lr": -1, "_name": "piecewise_warmup", **defaults, **flags}
    return PiecewiseWarmup(OmegaConf.create(values), optimizer)


@pytest.mark.parametrize("golden", GOLDEN)
def test_golden_values(optimizer, golden):
    flags = ("intermediate_lr", "warmup_updates", "intermediate_warmup_updates", "warmup_init_lr")
    scheduler = schedule(optimizer, lr=[golden["lr"]], **{f: golden[f] for f in flags})
    assert optimizer.get_lr() == golden["lr_at_construction"]
    for update, rate in golden["values"]:
        assert scheduler.step_update(update) == pytest.approx(rate, rel=1e-9, abs=1e-15)
        assert optimizer.get_lr() == pytest.approx(rate, rel=1e-9, abs=1e-15)


def test_defaults_are_the_papers():
    config = PiecewiseWarmupConfig()
    assert (config.warmup_updates, config.intermediate_warmup_updates) == (50_000, 25_000)
    assert config.intermediate_lr == 2e-5


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"intermediate_warmup_updates": 50}, "--intermediate-warmup-updates 50"),
        ({"intermediate_warmup_updates": 0}, "--intermediate-warmup-updates 0"),
        ({"lr": [1.0, 2.0]}, "--lr"),
    ],
)
def test_wrong_flags_are_named(optimizer, flags, message):
    with pytest.raises(InputError, match=message):
        schedule(optimizer, **flags)
