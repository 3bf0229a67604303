"""Which share a launcher gives a process."""

from __future__ import annotations

import logging

import pytest

from fbk_xattn.errors import InputError
from fbk_xattn.tasks.sharding import Shard, launched_shard

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
