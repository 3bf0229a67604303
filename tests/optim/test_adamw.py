"""torch's AdamW against fairseq's Adam, whose rule it shares."""

from __future__ import annotations

import copy

import pytest
import torch
from fairseq.optim.adam import FairseqAdam
from fairseq_runs import run_train
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from fbk_xattn.checkpoints import load_checkpoint
from fbk_xattn.errors import InputError
from fbk_xattn.optim.adamw import AdamW

FLAGS = {
    "lr": [0.05],
    "adam_betas": "(0.9, 0.98)",
    "adam_eps": 1e-8,
    "weight_decay": 0.1,
    "bf16": False,
    "seed": 1,
}
HALF_PRECISION = {**FLAGS, "bf16": True}


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


@pytest.mark.parametrize(
    ("setting", "flag"),
    [("lr", "--lr"), ("adam_eps", "--adam-eps"), ("weight_decay", "--weight-decay")],
)
@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_other_wrong_settings_are_named(setting, flag, value):
    flags = {**FLAGS, setting: [value] if setting == "lr" else value}
    with pytest.raises(InputError) as error:
        AdamW(OmegaConf.create(flags), [torch.nn.Parameter(torch.ones(1))])
    assert str(error.value) == f"{flag} {value}: expected 0 or more"


def test_weights_without_gradients_are_left_alone():
    (ours, adamw), _ = pair()
    before = [weight.detach().clone() for weight in ours]
    assert adamw.clip_grad_norm(1.0) == 0
    ours[1].grad = torch.ones(5)
    assert adamw.clip_grad_norm(1.0) == pytest.approx(5**0.5)
    adamw.step()
    assert torch.equal(ours[0], before[0])
    assert not torch.equal(ours[1], before[1])


def test_settings_of_the_run_replace_those_of_the_checkpoint():
    (ours, adamw), _ = pair()
    step(ours, adamw, 0)
    other = {"lr": [0.2], "adam_betas": (0.8, 0.9), "adam_eps": 1e-6, "weight_decay": 0.0}
    again = AdamW(
        OmegaConf.create({**FLAGS, **other}), [torch.nn.Parameter(p.detach().clone()) for p in ours]
    )
    again.load_state_dict(copy.deepcopy(adamw.state_dict()), again.optimizer_config)
    (group,) = again.param_groups
    assert {name: group[name] for name in ("lr", "betas", "eps", "weight_decay")} == {
        "lr": 0.2, "betas": (0.8, 0.9), "eps": 1e-6, "weight_decay": 0.0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("begun_with", "precision"), [("adamw", ()), ("adamw", ("--bf16",)), ("adam", ("--bf16",))]
)
def test_trains_and_goes_on(data, tmp_path, begun_with, precision):
    betas = ("--adam-betas", "(0.9, 0.98)")
    run_train(data, tmp_path, "--optimizer", begun_with, *betas, *precision)
    run_train(data, tmp_path, "--optimizer", "adamw", "--max-update", "8", *precision)
    state = load_checkpoint(tmp_path / "checkpoint_last.pt")
    assert {float(s["step"]) for s in state["last_optimizer_state"]["state"].values()} == {8.0}


def copies(*weights):
    """What fairseq trains with --bf16: float32 copies of weights that bf16 has rounded."""
    return [torch.nn.Parameter(weight.bfloat16().float()) for weight in weights]


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1))
def test_bits_that_bf16_has_no_place_for_leave_its_weights_as_they_are(values):
    weights = torch.tensor(values)[:, None].bfloat16()
    weights = weights[weights.isfinite()][:, None]  # the largest floats round to infinity
    (matrix,) = copies(weights)
    AdamW(OmegaConf.create(HALF_PRECISION), [matrix])
    assert torch.equal(matrix.bfloat16(), weights)


def test_copies_of_bf16_weights_get_bits_of_their_own():
    torch.manual_seed(0)
    weights = torch.randn(50, 40), torch.ones(50)
    with torch.no_grad():
        weights[0][3] = 0  # as the embedding of padding
    made = {}
    for name, flags in {
        "once": HALF_PRECISION,
        "again": HALF_PRECISION,
        "other seed": {**HALF_PRECISION, "seed": 2},
        "single precision": FLAGS,
    }.items():
        made[name] = copies(*weights)
        AdamW(OmegaConf.create(flags), made[name])
    rounded = copies(*weights)
    assert torch.equal(made["once"][0], made["again"][0])
    assert not torch.equal(made["once"][0], made["other seed"][0])
    assert torch.equal(made["single precision"][0], rounded[0])
    differ = made["once"][0] != rounded[0]
    assert not differ[3].any()
    assert differ[torch.arange(50) != 3].float().mean() > 0.99
    assert torch.equal(made["once"][1], rounded[1])  # a vector: gains of norms, which begin with 1


def test_steps_that_bf16_has_no_place_for_add_up():
    torch.manual_seed(0)
    (weights,) = copies(torch.rand(100, 100) + 1)  # 2 ** -7 from one to the next
    begin = weights.detach().clone()
    adamw = AdamW(OmegaConf.create({**HALF_PRECISION, "lr": [1e-4], "weight_decay": 0}), [weights])
    for _ in range(5):
        weights.grad = torch.ones_like(weights)
        adamw.step()
    moved = (begin - weights.bfloat16().float()).mean().item()
    assert moved == pytest.approx(5e-4, rel=0.2)
