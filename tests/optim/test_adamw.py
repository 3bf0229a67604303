"""torch's AdamW against fairseq's Adam, whose rule it shares."""

from __future__ import annotations

import copy

import pytest
import torch
from fairseq.optim.adam import FairseqAdam
from fairseq_runs import run_train
from omegaconf import OmegaConf

from fbk_xattn.checkpoints import load_checkpoint
from fbk_xattn.errors import InputError
from fbk_xattn.optim.adamw import AdamW

FLAGS = {"lr": [0.05], "adam_betas": "(0.9, 0.98)", "adam_eps": 1e-8, "weight_decay": 0.1}


def pair():
    torch.manual_seed(0)
    weights = [torch.randn(3, 4), torch.randn(5)]
    made = []
    for kind, more in ((AdamW, {}), (FairseqAdam, {"fp16_adam_stats": False, "tpu": False})):
        parameters = [torch.nn.Parameter(w.clone()) for w in weights]
        made.append((parameters, kind(OmegaConf.create({**FLAGS, **more}), parameters)))
    return made


def step(parameters, optimizer, number, max_norm=0.5):
    generator = torch.Generator().manual_seed(number)
    for parameter in parameters:
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    norm = optimizer.clip_grad_norm(max_norm)
    optimizer.step()
    return norm


def test_makes_the_updates_of_fairseqs_adam():
    (ours, adamw), (theirs, adam) = pair()
    for number in range(20):
        norms = step(ours, adamw, number), step(theirs, adam, number)
        torch.testing.assert_close(*norms)
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_a_norm_below_the_limit_changes_nothing():
    (ours, adamw), _ = pair()
    for limit in (0, 1e6):
        ours[0].grad = torch.ones(3, 4)
        assert adamw.clip_grad_norm(limit) == pytest.approx(12**0.5)
        assert torch.equal(ours[0].grad, torch.ones(3, 4))


def test_the_norm_of_all_processes_is_what_clips():
    (ours, adamw), _ = pair()
    ours[0].grad = torch.ones(3, 4)
    adamw.clip_grad_norm(1.0, lambda norm: 2 * norm)
    torch.testing.assert_close(ours[0].grad, torch.full((3, 4), 1 / (2 * 12**0.5)))


@pytest.mark.parametrize("begun_with", ["adamw", "adam"])
def test_goes_on_from_a_checkpoint(begun_with):
    (ours, adamw), (theirs, adam) = pair()
    parameters, optimizer = (ours, adamw) if begun_with == "adamw" else (theirs, adam)
    for number in range(3):
        step(parameters, optimizer, number)
    resumed = [torch.nn.Parameter(p.detach().clone()) for p in parameters]
    again = AdamW(OmegaConf.create(FLAGS), resumed)
    again.load_state_dict(copy.deepcopy(optimizer.state_dict()), again.optimizer_config)
    for number in range(3, 6):
        step(parameters, optimizer, number)
        step(resumed, again, number)
    torch.testing.assert_close(resumed, parameters, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("betas", ["(0.9, 1.0)", "0.9", "(0.9, 0.98, 0.99)", "nonsense(", "(a, b)"])
def test_wrong_betas_are_named(betas):
    with pytest.raises(InputError, match=r"--adam-betas .*expected two numbers"):
        AdamW(OmegaConf.create({**FLAGS, "adam_betas": betas}), [torch.nn.Parameter(torch.ones(1))])


def test_trains_and_goes_on(data, tmp_path):
    run_train(data, tmp_path, "--optimizer", "adamw")
    run_train(data, tmp_path, "--optimizer", "adamw", "--max-update", "8")
    state = load_checkpoint(tmp_path / "checkpoint_last.pt")
    assert {float(s["step"]) for s in state["last_optimizer_state"]["state"].values()} == {8.0}
