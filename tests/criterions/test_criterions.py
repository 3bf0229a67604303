import argparse
import copy
import math

import numpy as np
import pytest
import torch
from fairseq import criterions
from fairseq.criterions import CRITERION_REGISTRY
from fairseq.logging import metrics
from golden import published
from torch.nn import functional

from fbk_xattn.criterions import logged as logged_values
from fbk_xattn.criterions.ctc import ctc_loss
from fbk_xattn.criterions.ctc_multi_loss import CTCMultiLoss
from fbk_xattn.criterions.joint_cross_entropy_ctc import JointCrossEntropyCTCCriterion
from fbk_xattn.errors import InputError

JOINT, SMOOTHED = "joint_cross_entropy_ctc", "label_smoothed_cross_entropy"
UNDERLYING = (JOINT, SMOOTHED)
PAD, EOS, BLANK = 1, 2, 300
ALL = tuple(range(6))


def criterion(name="ctc_multi_loss", **flags):
    """Build a criterion with the flags of the published checkpoint; ``flags`` override."""
    _, task, saved = published.load()
    args = argparse.Namespace(**{**vars(saved.model), "criterion": name, **flags})
    return criterions.build_criterion(args, task).eval()


def compute(name="ctc_multi_loss", sample=None, **flags):
    """Return loss, denominator and what is logged, as numbers."""
    model, _, _ = published.load()
    with torch.no_grad():
        loss, denominator, logged = criterion(name, **flags)(
            model, published.batch(0, 1, 2) if sample is None else sample
        )
    return loss.item(), denominator, {key: float(value) for key, value in logged.items()}


def forward(sample):
    """Return log-probabilities of the decoder and of both CTC heads, in double precision."""
    model, _, _ = published.load()
    with torch.no_grad():
        net_input = sample["net_input"]
        out = model.encoder(net_input["src_tokens"], net_input["src_lengths"])
        logits, _ = model.decoder(net_input["prev_output_tokens"], encoder_out=out)
        auxiliary = model.auxiliary_logits(out, net_input["prev_output_tokens"])
        ctc = model.encoder.ctc_logits(out).transpose(0, 1)
    return [x.double().log_softmax(-1) for x in (logits, auxiliary, ctc)], out["src_lengths"][0]


# ---- as published


@pytest.mark.parametrize("sentence_avg", [False, True])
def test_losses_are_the_published_ones(sentence_avg):
    recorded = published.values("losses_joint")[f"sentence_avg={sentence_avg}"]
    loss, denominator, logged = compute(
        sample=published.batch(*ALL), underlying_criterion=JOINT, sentence_avg=sentence_avg
    )
    assert loss == pytest.approx(recorded["loss"], rel=1e-5, abs=1e-3)
    assert denominator == recorded["sample_size_returned"]
    assert logged == pytest.approx(recorded["logging"], rel=1e-5, abs=1e-3)


def test_gradients_are_the_published_ones():
    model, _, _ = published.load()
    recorded = published.values("losses_joint")["grad_l2_undivided"]
    parameters = dict(model.named_parameters())
    assert parameters.keys() == recorded.keys()
    loss, _, _ = criterion()(model, published.batch(*ALL))
    gradients = torch.autograd.grad(loss, list(parameters.values()))
    norms = {
        name: gradient.norm().item() for name, gradient in zip(parameters, gradients, strict=True)
    }
    # The bias of a key adds the same to all scores of a softmax: its gradient is rounding (1e-6).
    assert norms == pytest.approx(recorded, rel=1e-4, abs=1e-5)


def test_cross_entropy_alone_is_smoothed_as_published_too():
    recorded = published.values("losses_joint")["sentence_avg=False"]["logging"]
    loss, denominator, logged = compute(sample=published.batch(*ALL), underlying_criterion=SMOOTHED)
    assert logged["real_loss"] == pytest.approx(recorded["primary_loss"], rel=1e-5)
    assert logged["nll_loss"] == pytest.approx(recorded["nll_loss"], rel=1e-5)
    assert logged["ctc_loss"] == pytest.approx(recorded["ctc_loss"], rel=1e-5)
    assert loss == pytest.approx(recorded["primary_loss"] + recorded["ctc_loss"], rel=1e-5)
    assert denominator == 174
    assert "auxiliary_loss" not in logged


# ---- by the definitions


@pytest.mark.parametrize("epsilon", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("prefix", [0, 1])
@pytest.mark.parametrize("underlying", UNDERLYING)
def test_smoothing_spreads_epsilon_over_all_symbols(underlying, prefix, epsilon):
    sample = published.batch(0, 1, 2)
    (log_probs, _, _), _ = forward(sample)
    nll = smooth = 0.0
    for row, target in enumerate(sample["target"].tolist()):
        for position, symbol in enumerate(target):
            if position >= prefix and symbol != PAD:
                distribution = log_probs[row, position]
                nll -= distribution[symbol].item()
                smooth -= distribution.mean().item()
    _, _, logged = compute(
        underlying_criterion=underlying, label_smoothing=epsilon, ignore_prefix_size=prefix
    )
    name = "primary_loss" if underlying == JOINT else "real_loss"
    assert logged[name] == pytest.approx((1 - epsilon) * nll + epsilon * smooth, rel=1e-5)
    assert logged["nll_loss"] == pytest.approx(nll, rel=1e-5)


def plain_ctc(log_probs, targets, lengths):
    """Sum the CTC losses of one utterance after another, each without padding."""
    return sum(
        functional.ctc_loss(
            log_probs[row, : lengths[row], None],
            torch.tensor([target]),
            torch.tensor([lengths[row]]),
            torch.tensor([len(target)]),
            blank=BLANK,
            reduction="sum",
        ).item()
        for row, target in enumerate(targets)
    )


def test_ctc_targets_are_the_texts_without_language_tag_and_eos():
    sample = published.batch(0, 1, 2, 3)
    (_, auxiliary, ctc), lengths = forward(sample)
    transcripts = [
        [s for s in row if s not in (PAD, EOS)] for row in sample["transcript"]["target"].tolist()
    ]
    targets = [[s for s in row[1:] if s not in (PAD, EOS)] for row in sample["target"].tolist()]
    _, _, logged = compute(sample=sample)
    expected = plain_ctc(ctc, transcripts, lengths.tolist())
    assert logged["ctc_loss"] == pytest.approx(expected, rel=1e-5)
    expected = plain_ctc(auxiliary, targets, lengths.tolist())
    assert logged["auxiliary_loss"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("underlying", UNDERLYING)
def test_prefix_counts_in_no_loss(underlying):
    sample = published.batch(0, 1, 2)
    changed = {**sample, "target": sample["target"].clone()}
    changed["target"][:, 0] = 77

    def losses(sample, prefix):
        flags = {"underlying_criterion": underlying, "ignore_prefix_size": prefix}
        return compute(sample=sample, **flags)[2]

    assert losses(changed, 1) == losses(sample, 1)
    assert losses(changed, 0)["loss"] != losses(sample, 0)["loss"]


def test_total_is_the_weighted_sum():
    _, _, parts = compute(ctc_weight=1.0, primary_loss_weight=1.0, auxiliary_loss_weight=1.0)
    loss, _, logged = compute(ctc_weight=0.5, primary_loss_weight=3.0, auxiliary_loss_weight=0.25)
    real = 3 * parts["primary_loss"] + 0.25 * parts["auxiliary_loss"]
    assert logged["real_loss"] == pytest.approx(real, rel=1e-6)
    assert loss == logged["loss"] == pytest.approx(real + 0.5 * parts["ctc_loss"], rel=1e-6)
    loss, _, logged = compute(underlying_criterion=SMOOTHED, ctc_weight=0.5)
    assert loss == pytest.approx(parts["primary_loss"] + 0.5 * parts["ctc_loss"], rel=1e-6)


@pytest.mark.parametrize("underlying", UNDERLYING)
def test_batch_is_the_sum_of_its_utterances(underlying):
    singles = [
        compute(sample=published.batch(n), underlying_criterion=underlying) for n in range(3)
    ]
    loss, denominator, logged = compute(underlying_criterion=underlying)
    assert loss == pytest.approx(sum(single[0] for single in singles), rel=1e-5)
    assert denominator == sum(single[1] for single in singles)
    for key, value in logged.items():
        assert value == pytest.approx(sum(single[2][key] for single in singles), rel=1e-5), key


@pytest.mark.parametrize("underlying", UNDERLYING)
@pytest.mark.parametrize("sentence_avg", [False, True])
def test_gradient_is_divided_by_transcript_tokens_and_the_log_by_target_tokens(
    underlying, sentence_avg
):
    sample = published.batch(0, 1, 2)
    _, denominator, logged = compute(underlying_criterion=underlying, sentence_avg=sentence_avg)
    n_transcript = (sample["transcript"]["target"] != PAD).sum().item()
    n_target = (sample["target"] != PAD).sum().item()
    assert n_transcript != n_target
    assert denominator == (3 if sentence_avg else n_transcript)
    assert logged["sample_size"] == (3 if sentence_avg else n_target)
    assert logged["ntokens"] == n_target
    assert logged["nsentences"] == 3


@pytest.mark.parametrize("sentence_avg", [False, True])
def test_joint_criterion_works_on_its_own(sentence_avg):
    _, _, parts = compute()
    loss, denominator, logged = compute(JOINT, sentence_avg=sentence_avg)
    assert loss == logged["loss"] == pytest.approx(parts["real_loss"], rel=1e-6)
    assert "ctc_loss" not in logged
    n_target = (published.batch(0, 1, 2)["target"] != PAD).sum().item()
    assert denominator == logged["sample_size"] == (3 if sentence_avg else n_target)


@pytest.mark.parametrize("underlying", UNDERLYING)
def test_accuracy_is_logged_on_request(underlying):
    sample = published.batch(0, 1, 2)
    (log_probs, _, _), _ = forward(sample)
    kept = (sample["target"] != PAD)[:, 1:]
    correct = ((log_probs.argmax(-1) == sample["target"])[:, 1:] & kept).sum().item()
    _, _, logged = compute(underlying_criterion=underlying, report_accuracy=True)
    assert logged["n_correct"] == correct > 0
    assert logged["total"] == kept.sum().item()
    assert "n_correct" not in compute(underlying_criterion=underlying)[2]


def test_utterance_shorter_than_its_transcript_adds_nothing():
    sample = copy.deepcopy(published.batch(0, 1))
    long = sample["transcript"]["target"].new_full((2, 200), 9)
    long[:, :10] = torch.arange(20, 30)
    short = {"target": long, "target_lengths": torch.tensor([11, 200]), "ntokens": 211}
    model, _, _ = published.load()
    loss, _, logged = criterion()(model, {**sample, "transcript": short})
    (_, _, ctc), _ = forward(sample)
    expected = functional.ctc_loss(
        ctc[:1].transpose(0, 1), long[:1, :10], torch.tensor([55]), torch.tensor([10]),
        blank=BLANK, reduction="sum",
    )  # fmt: skip
    assert logged["ctc_loss"].item() == pytest.approx(expected.item(), rel=1e-5)
    weight = model.encoder.ctc_fc.weight
    assert torch.autograd.grad(loss, weight)[0].isfinite().all()


def test_empty_transcript_has_a_loss():
    """All steps are blank then."""
    logits = torch.randn(6, 1, 4)
    loss = ctc_loss(logits, torch.tensor([6]), torch.tensor([[2]]), torch.tensor([0]), blank=3)
    assert loss.item() == pytest.approx(-logits.log_softmax(-1)[:, 0, 3].sum().item(), rel=1e-5)


def test_losses_are_computed_in_single_precision():
    logits = 30 * torch.randn(20, 1, 6)
    args = (torch.tensor([20]), torch.tensor([[2, 3, 3]]), torch.tensor([3]), 5)
    half = ctc_loss(logits.bfloat16(), *args)
    assert half.dtype == torch.float32
    assert half.item() == pytest.approx(ctc_loss(logits.bfloat16().float(), *args).item())


# ---- flags and logs


def test_unknown_underlying_criterion_is_refused():
    with pytest.raises(InputError) as caught:
        criterion(underlying_criterion="cross_entropy")
    assert str(caught.value) == (
        "--underlying-criterion cross_entropy, expected joint_cross_entropy_ctc or "
        "label_smoothed_cross_entropy"
    )


def test_defaults_are_the_papers():
    parser = argparse.ArgumentParser()
    CTCMultiLoss.add_args(parser)
    flags = parser.parse_args([])
    weights = (flags.primary_loss_weight, flags.ctc_weight, flags.auxiliary_loss_weight)
    assert weights == (5.0, 1.0, 2.0)
    assert flags.underlying_criterion == JOINT


def test_fairseqs_own_criterion_is_left_alone():
    own = CRITERION_REGISTRY[SMOOTHED]
    assert own.__module__ == "fairseq.criterions.label_smoothed_cross_entropy"


@pytest.mark.parametrize("underlying", UNDERLYING)
def test_log_is_in_bits_a_token(underlying):
    logs = [
        compute(sample=published.batch(n), underlying_criterion=underlying, report_accuracy=True)[2]
        for n in (0, 1)
    ]
    with metrics.aggregate(new_root=True) as aggregated:
        CTCMultiLoss.reduce_metrics(logs)
        shown = aggregated.get_smoothed_values()
    tokens = sum(log["ntokens"] for log in logs)
    names = {"loss", "ctc_loss", "real_loss", "nll_loss"}
    names |= {"primary_loss", "auxiliary_loss"} if underlying == JOINT else set()
    for name in names:
        expected = sum(log[name] for log in logs) / tokens / math.log(2)
        assert shown[name] == pytest.approx(expected, abs=2e-3), name
    assert shown["accuracy"] == pytest.approx(
        100 * sum(log["n_correct"] for log in logs) / sum(log["total"] for log in logs), abs=0.01
    )
    assert names == {name for name in shown if name.endswith("loss")}


@pytest.mark.parametrize("kind", [CTCMultiLoss, JointCrossEntropyCTCCriterion])
def test_logs_of_workers_may_be_summed(kind):
    assert kind.logging_outputs_can_be_summed()
    logs = [compute(sample=published.batch(n))[2] for n in (0, 1)]
    summed = {key: logs[0][key] + logs[1][key] for key in logs[0]}
    shown = []
    for outputs in (logs, [summed]):
        with metrics.aggregate(new_root=True) as aggregated:
            kind.reduce_metrics(outputs)
            shown.append(aggregated.get_smoothed_values())
    assert shown[0] == pytest.approx(shown[1])


def test_nothing_is_random_in_evaluation():
    assert compute() == compute()
    assert np.isfinite(compute()[0])


def test_utterances_too_short_for_ctc_are_counted_in_training(caplog, monkeypatch):
    """Their CTC loss is 0, not infinite, and a warning says so once."""
    monkeypatch.setattr(logged_values, "_warned", set())
    model = copy.deepcopy(published.load()[0])
    sample = published.batch(0, 1, 2)
    n_steps = int(model.encoder(**encoder_input(sample))["src_lengths"][0].max())
    long = torch.randint(5, 100, (3, n_steps + 2))
    long[:, -1] = EOS
    lengths = torch.full((3,), n_steps + 2)
    sample["transcript"] = {**sample["transcript"], "target": long, "target_lengths": lengths}
    _, _, logged = criterion().train()(model.train(), sample)
    assert logged["ctc_loss"] == 0
    assert logged["ctc_too_short"] == 3
    assert logged["auxiliary_too_short"] == 0
    for _ in range(2):
        with metrics.aggregate(new_root=True) as meters:
            CTCMultiLoss.reduce_metrics([logged, logged])
    assert meters["ctc_too_short"].sum == 6
    assert meters["auxiliary_too_short"].sum == 0
    (warning,) = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert warning.startswith("6 of the transcripts of this update are longer")
    assert "ctc_too_short" not in criterion()(model.eval(), sample)[2]


def encoder_input(sample):
    return {key: sample["net_input"][key] for key in ("src_tokens", "src_lengths")}
