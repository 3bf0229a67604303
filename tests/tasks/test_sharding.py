"""Which share of the utterances a process takes."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fbk_xattn.errors import InputError
from fbk_xattn.tasks.sharding import Shard, launched_shard, own_utterances, utterance_cost

STEP = {"SLURM_JOB_ID": "1", "SLURM_STEP_ID": "0", "SLURM_PROCID": "2", "SLURM_LOCALID": "1"}


@pytest.mark.parametrize(
    ("world_size", "rank", "environment", "expected"),
    [
        (1, 0, {}, Shard(0, 1, 0, "none")),
        (4, 3, {}, Shard(3, 4, 0, "fairseq flags")),
        (4, 3, {"RANK": "1", "WORLD_SIZE": "2"}, Shard(3, 4, 0, "fairseq flags")),
        (
            1,
            0,
            {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "SLURM_PROCID": "0"},
            Shard(5, 8, 1, "torchrun"),
        ),
        (1, 0, {**STEP, "SLURM_NTASKS": "4"}, Shard(2, 4, 1, "SLURM")),
        # A step of fewer tasks than the job reserved.
        (1, 0, {**STEP, "SLURM_NTASKS": "8", "SLURM_STEP_NUM_TASKS": "3"}, Shard(2, 3, 1, "SLURM")),
        (1, 0, {"SLURM_PROCID": "0", "SLURM_NTASKS": "2"}, Shard(0, 2, 0, "SLURM")),
    ],
)
def test_launchers(world_size, rank, environment, expected):
    assert launched_shard(world_size, rank, 0, environment) == expected


@pytest.mark.parametrize(
    "environment", [{"RANK": "1", "WORLD_SIZE": "2"}, {**STEP, "SLURM_NTASKS": "4"}]
)
def test_flags_that_give_all_processes_one_shard_are_refused(environment):
    with pytest.raises(InputError, match=r"--num-shards 2 without --shard-id in process \d of"):
        launched_shard(2, 0, 0, environment)


def test_a_batch_script_without_srun_takes_everything(caplog):
    environment = {"SLURM_JOB_ID": "1", "SLURM_PROCID": "0", "SLURM_NTASKS": "4"}
    with caplog.at_level(logging.WARNING):
        assert launched_shard(1, 0, 0, environment).count == 1
    assert "outside srun" in caplog.text


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"RANK": "two", "WORLD_SIZE": "4"}, "RANK is 'two'"),
        ({"RANK": "4", "WORLD_SIZE": "4"}, "rank 4"),
        ({**STEP, "SLURM_NTASKS": "2"}, "rank 2"),
    ],
)
def test_nonsense_is_refused(environment, message):
    with pytest.raises(InputError, match=message):
        launched_shard(1, 0, 0, environment)


LENGTHS = st.lists(st.integers(1, 3000), min_size=1, max_size=40)
COUNTS = st.integers(1, 12)


def in_batches(n_frames, size):
    numbers = list(range(len(n_frames)))
    return [numbers[start : start + size] for start in range(0, len(numbers), size)]


def dealt(batches, n_frames, count):
    return [own_utterances(batches, n_frames, Shard(k, count)) for k in range(count)]


@given(LENGTHS, COUNTS, st.integers(1, 7))
def test_every_utterance_is_in_one_share_in_its_batch(n_frames, count, size):
    batches = in_batches(n_frames, size)
    shares = dealt(batches, n_frames, count)
    for number, batch in enumerate(batches):
        assert sorted(i for share in shares for i in share[number]) == batch
    assert shares == dealt(batches, list(n_frames), count)


@given(LENGTHS, COUNTS, st.integers(1, 7))
def test_no_share_exceeds_the_mean_by_more_than_an_utterance(n_frames, count, size):
    shares = dealt(in_batches(n_frames, size), n_frames, count)
    loads = [sum(utterance_cost(n_frames[i]) for part in own for i in part) for own in shares]
    longest = max(map(utterance_cost, n_frames))
    assert max(loads) <= (sum(loads) / count + longest) * (1 + 1e-9)


@given(LENGTHS, COUNTS, st.integers(1, 7))
def test_batches_are_cut_less_often_than_there_are_processes(n_frames, count, size):
    batches = in_batches(n_frames, size)
    shares = dealt(batches, n_frames, count)
    parts = sum(bool(part) for share in shares for part in share)
    assert parts <= len(batches) + count - 1


def test_shares_are_worked_out_by_hand():
    assert dealt([[0, 1], [2, 3]], [100] * 4, 2) == [[[0, 1], []], [[], [2, 3]]]
    assert dealt([[0, 1, 2]], [100, 100, 200], 2) == [[[0, 1]], [[2]]]
    assert dealt([[0]], [100], 3) == [[[]], [[0]], [[]]]
    # Every other batch, so that each has long and short ones.
    shares = dealt([[0], [1], [2], [3]], [100] * 4, 2)
    assert shares == [[[0], [], [2], []], [[], [1], [], [3]]]


@pytest.mark.parametrize("size", [8, 64])
def test_shares_of_speech_are_even(size):
    """1,130 segments of 1 to 30 s, longest first as fairseq orders them."""
    n_frames = sorted((100 + (i * 7919) % 2900 for i in range(1130)), reverse=True)
    loads = [
        sum(utterance_cost(n_frames[i]) for part in own for i in part)
        for own in dealt(in_batches(n_frames, size), n_frames, 8)
    ]
    assert max(loads) / min(loads) < 1.03


def test_a_long_utterance_costs_more_than_short_ones_of_the_same_length_together():
    assert utterance_cost(3000) > 2 * utterance_cost(1500)
    assert utterance_cost(3000) == pytest.approx(3000, rel=0.3)
