"""Training on transcripts and translations in turns."""

from __future__ import annotations

import argparse

import numpy as np
import pytest
import torch
from fairseq import criterions, tasks
from fairseq.logging import metrics
from fairseq_runs import run_train
from golden import published

from fbk_xattn.errors import InputError
from fbk_xattn.tasks.speech_to_text_ctc_asr_st import with_targets

GOLDEN = published.values("asr_st")


def task_with(**flags):
    """Return the task on the published data, as ``fairseq-train`` sets it up."""
    saved = vars(published.load()[2].model)
    args = argparse.Namespace(**{
        **saved, "task": "speech_to_text_ctc_asr_st", "data": str(published.FOLDER / "data"),
        "config_yaml": "config.yaml", "p_sampling_asr": 0.5, "seed": 1, "explain": [],
        "attribution_dir": None, "save_cross_attention": False, **flags,
    })  # fmt: skip
    return tasks.setup_task(args), args


@pytest.fixture(scope="module")
def published_batch():
    """Task, criterion and the batch of the six published utterances."""
    task, args = task_with()
    task.target_dictionary.add_symbol("<ctc_blank>")  # as building the model does
    task.load_dataset("test")
    dataset = task.datasets["test"]
    sample = dataset.collater([dataset[i] for i in range(6)])
    return task, criterions.build_criterion(args, task).eval(), sample


def numbers(logged):
    return {name: float(value) for name, value in logged.items()}


def test_transcripts_take_the_form_of_targets(published_batch):
    _, _, sample = published_batch
    targets = sample["transcript_as_target"]
    assert targets["ntokens"] == GOLDEN["ntokens_prepended_transcript"]
    for row, utterance in enumerate(sample["id"].tolist()):
        recorded = GOLDEN["collate"][str(utterance)]
        length = targets["target_lengths"][row]
        assert targets["target"][row, :length].tolist() == recorded["prepended_transcript"]
        shifted = targets["prev_output_tokens"][row, :length].tolist()
        assert shifted == recorded["prev_transcript_tokens"]


def test_validation_adds_up_both_losses(published_batch):
    task, criterion, sample = published_batch
    model, _, _ = published.load()
    loss, denominator, logged = task.valid_step(sample, model, criterion)
    recorded = GOLDEN["valid_step"]
    assert loss.item() == pytest.approx(recorded["loss"], rel=1e-5)
    assert denominator == recorded["sample_size"]
    assert numbers(logged) == pytest.approx(recorded["logging"], rel=1e-5)


@pytest.mark.parametrize("kind", ["asr", "st"])
def test_losses_of_either_targets_are_the_published_ones(published_batch, kind):
    _, criterion, sample = published_batch
    model, _, _ = published.load()
    with torch.no_grad():
        loss, denominator, logged = criterion(model, with_targets(sample, kind))
    recorded = GOLDEN[f"train_step_{kind}"]
    assert loss.item() == pytest.approx(recorded["loss"], rel=1e-5)
    assert denominator == recorded["sample_size"]
    expected = {k: v for k, v in recorded["logging"].items() if k != "loss"}
    assert {f"{k}_{kind}": v for k, v in numbers(logged).items()} == pytest.approx(
        expected, rel=1e-5
    )


def test_metrics_name_their_kind(published_batch):
    task, criterion, sample = published_batch
    model, _, _ = published.load()
    _, _, logged = task.valid_step(sample, model, criterion)
    with metrics.aggregate(new_root=True) as aggregate:
        task.reduce_metrics([logged, logged], criterion)
    values = aggregate.get_smoothed_values()
    recorded = GOLDEN["valid_step"]["logging"]
    for kind in ("asr", "st"):
        bits = recorded[f"loss_{kind}"] / recorded[f"sample_size_{kind}"] / np.log(2)
        assert values[f"loss_{kind}"] == pytest.approx(bits, abs=1e-3)
    both = recorded["loss"] / (recorded["sample_size_asr"] + recorded["sample_size_st"])
    assert values["loss"] == pytest.approx(both / np.log(2), abs=1e-3)


def draws(updates, micro_batches=2, **flags):
    task, _ = task_with(**flags)
    return [[task.takes_transcripts(update) for _ in range(micro_batches)] for update in updates]


def test_draws_depend_on_seed_and_update_alone():
    whole = draws(range(200))
    assert draws(range(100, 200)) == whole[100:]  # after a restart
    assert draws(range(200), seed=2) != whole
    share = np.mean(whole)
    assert abs(share - 0.5) < 4 * 0.5 / np.sqrt(400)
    assert any(first != second for first, second in whole)  # micro-batches draw apart


def test_probabilities_0_and_1():
    assert not np.any(draws(range(50), p_sampling_asr=0.0))
    assert np.all(draws(range(50), p_sampling_asr=1.0))


def test_a_probability_out_of_range_is_refused():
    with pytest.raises(InputError, match=r"--p-sampling-asr 1\.5: expected 0 to 1"):
        task_with(p_sampling_asr=1.5)


def test_training_runs(data, tmp_path):
    run_train(
        data, tmp_path, "--task", "speech_to_text_ctc_asr_st", "--p-sampling-asr", "0.5",
        "--lr-scheduler", "piecewise_warmup", "--warmup-updates", "4",
        "--intermediate-warmup-updates", "2", "--intermediate-lr", "1e-4",
    )  # fmt: skip
    assert (tmp_path / "checkpoint_last.pt").is_file()
