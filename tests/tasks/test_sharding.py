"""Which share of the utterances a process takes."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fbk_xattn.errors import InputError
from fbk_xattn.tasks.sharding import Shard, deal, launched_shard, own_batches, utterance_cost

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


COSTS = st.lists(st.floats(0, 1e6, allow_subnormal=False), max_size=40)
COUNTS = st.integers(1, 12)


@given(COSTS, COUNTS)
def test_every_item_is_dealt_to_one_share(costs, count):
    shares = deal(costs, count)
    assert len(shares) == count
    assert sorted(item for share in shares for item in share) == list(range(len(costs)))
    assert all(share == sorted(share) for share in shares)
    assert shares == deal(list(costs), count)


@given(COSTS, COUNTS)
def test_no_share_exceeds_the_mean_by_more_than_an_item(costs, count):
    largest = max(sum(costs[item] for item in share) for share in deal(costs, count))
    assert largest <= (sum(costs) / count + max(costs, default=0)) * (1 + 1e-9)


def test_shares_are_worked_out_by_hand():
    assert deal([2, 7, 3, 5, 3], 2) == [[1, 4], [0, 2, 3]]  # 10 and 10
    assert deal([1, 1, 1], 2) == [[0, 2], [1]]
    assert deal([4], 3) == [[0], [], []]


def test_shares_of_speech_are_even():
    """1,130 segments of 1 to 30 s, eight a batch, longest first as fairseq orders them."""
    n_frames = sorted((100 + (i * 7919) % 2900 for i in range(1130)), reverse=True)
    batches = [range(i, min(i + 8, 1130)) for i in range(0, 1130, 8)]
    loads = [
        sum(utterance_cost(n_frames[i]) for batch in own for i in batch)
        for own in (own_batches(batches, n_frames, Shard(k, 8)) for k in range(8))
    ]
    assert max(loads) / min(loads) < 1.02


@given(st.lists(st.integers(1, 3000), min_size=1, max_size=30), COUNTS, st.integers(1, 7))
def test_batches_stay_whole_and_in_order(n_frames, count, size):
    batches = [
        list(range(len(n_frames)))[start : start + size] for start in range(0, len(n_frames), size)
    ]
    dealt = [own_batches(batches, n_frames, Shard(k, count)) for k in range(count)]
    assert sorted(batch for own in dealt for batch in own) == batches
    assert all(own == sorted(own) for own in dealt)


def test_a_long_utterance_costs_more_than_short_ones_of_the_same_length_together():
    assert utterance_cost(3000) > 2 * utterance_cost(1500)
    assert utterance_cost(3000) == pytest.approx(3000, rel=0.3)


def test_few_large_batches_are_reported_once(caplog):
    batches, n_frames = [[0, 1], [2, 3], [4, 5]], [100] * 6
    with caplog.at_level(logging.WARNING):
        for index in range(2):
            own_batches(batches, n_frames, Shard(index, 2))
    (message,) = caplog.messages
    assert "3 batches for 2 processes: the largest share is 1.3 times the mean" in message
    assert "--max-tokens" in message


def test_batches_that_cannot_be_smaller_are_not_reported(caplog):
    with caplog.at_level(logging.WARNING):
        own_batches([[0], [1], [2]], [100] * 3, Shard(0, 2))
    assert not caplog.messages
