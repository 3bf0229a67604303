"""Which share of the utterances this process takes, from its launcher."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass

from fbk_xattn.errors import InputError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Shard:
    """A process among those that share the work.

    Attributes:
        index: Its number, from 0.
        count: Number of processes.
        local_index: Its number on its machine, which picks the GPU.
        launcher: Where this was read from: ``fairseq flags``, ``torchrun``, ``SLURM`` or ``none``.
    """

    index: int = 0
    count: int = 1
    local_index: int = 0
    launcher: str = "none"


def launched_shard(
    world_size: int, rank: int, device_id: int, environment: Mapping[str, str] | None = None
) -> Shard:
    """Return this process's shard.

    fairseq's own flags win; then torchrun's variables, then SLURM's. A batch script of SLURM that
    runs the command without ``srun`` is one process, whatever number of tasks it reserved.

    Args:
        world_size: ``--distributed-world-size``.
        rank: ``--distributed-rank``.
        device_id: ``--device-id``.
        environment: Variables to read, by default those of the process.

    Raises:
        InputError: The launcher's variables are not numbers, or the rank is out of range.
    """
    env = os.environ if environment is None else environment
    if world_size > 1:
        return _checked(Shard(rank, world_size, device_id, "fairseq flags"))
    if "RANK" in env and "WORLD_SIZE" in env:
        local = _number(env, "LOCAL_RANK") if "LOCAL_RANK" in env else 0
        return _checked(Shard(_number(env, "RANK"), _number(env, "WORLD_SIZE"), local, "torchrun"))
    in_batch_script = "SLURM_JOB_ID" in env and not {"SLURM_STEP_ID", "SLURM_STEPID"} & set(env)
    count = "SLURM_STEP_NUM_TASKS" if "SLURM_STEP_NUM_TASKS" in env else "SLURM_NTASKS"
    if "SLURM_PROCID" in env and count in env and not in_batch_script:
        local = _number(env, "SLURM_LOCALID") if "SLURM_LOCALID" in env else 0
        return _checked(Shard(_number(env, "SLURM_PROCID"), _number(env, count), local, "SLURM"))
    if in_batch_script and env.get("SLURM_NTASKS", "1") != "1":
        logger.warning(
            "SLURM reserved %s tasks, but this command runs outside srun: it takes every utterance "
            "itself",
            env["SLURM_NTASKS"],
        )
    return Shard()


def _number(env: Mapping[str, str], name: str) -> int:
    if not env[name].isdecimal():
        raise InputError(f"environment variable {name} is {env[name]!r}, expected a whole number")
    return int(env[name])


def _checked(shard: Shard) -> Shard:
    if not 0 <= shard.index < shard.count:
        raise InputError(f"rank {shard.index} ({shard.launcher}), expected 0 to {shard.count - 1}")
    return shard
