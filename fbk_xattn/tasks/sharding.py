"""Which share of the utterances this process takes, by what its launcher says."""

from __future__ import annotations

import heapq
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fbk_xattn.errors import InputError

logger = logging.getLogger(__name__)

Batches = list[Sequence[int]]

# Length of an utterance whose attention costs as much as the rest of the encoder. In a layer of the
# base preset an encoder step (4 frames) costs 24 d^2 multiplications in projections, feed-forwards
# and convolution, and 4 d for each step that it attends to: equal at 6 d steps, d = 512.
ATTENTION_FRAMES = 12_000
# Ratio of the largest share to the mean from which on users are told.
UNEVEN = 1.2


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


def utterance_cost(n_frames: int) -> float:
    """Return the work that an utterance is expected to take, in frames of a short one.

    Every mask is a pass of the model. What a frame costs in it is constant, but for attention,
    which looks at all the others. The number of tokens is not known before decoding; it grows with
    the frames, which stand for it: cross-attention's frames times tokens is in the square.

    Args:
        n_frames: Feature frames (10 ms each).
    """
    return n_frames * (1 + n_frames / ATTENTION_FRAMES)


def deal(costs: Sequence[float], count: int) -> list[list[int]]:
    """Deal items out to shares of about equal cost.

    The dearest item goes first, each to the share that has least (longest processing time first,
    Graham 1969): no share exceeds the mean by more than one item, nor the best possible largest
    share by more than a third. A function of its arguments alone, so processes that never talk to
    each other agree.

    Args:
        costs: Of each item, 0 or more.
        count: Number of shares, at least 1.

    Returns:
        The items of each share, numbers from 0 in ascending order; every item is in one share.
    """
    shares: list[list[int]] = [[] for _ in range(count)]
    loads = [(0.0, share) for share in range(count)]
    for item in sorted(range(len(costs)), key=lambda item: (-costs[item], item)):
        load, share = heapq.heappop(loads)
        shares[share].append(item)
        heapq.heappush(loads, (load + costs[item], share))
    return [sorted(share) for share in shares]


def own_batches(batches: Sequence[Sequence[int]], n_frames: Sequence[int], shard: Shard) -> Batches:
    """Return the batches of one process, in their order.

    Batches stay as fairseq made them, whatever the number of processes: what pads an utterance
    decides how its results are rounded. Shares do not depend on what a store holds already, as
    processes that start one after the other would see different stores.

    Args:
        batches: Utterance numbers of each batch.
        n_frames: Of each utterance, feature frames (10 ms each).
        shard: The process.
    """
    costs = [sum(utterance_cost(n_frames[i]) for i in batch) for batch in batches]
    shares = deal(costs, shard.count)
    loads = [sum(costs[item] for item in share) for share in shares]
    if shard.index == 0 and shard.count > 1 and batches:
        _warn_if_uneven(max(loads) * shard.count / sum(loads), batches, shard.count)
    return [batches[item] for item in shares[shard.index]]


def _warn_if_uneven(ratio: float, batches: Sequence[Sequence[int]], count: int) -> None:
    """Say what helps when one process works much longer than the others."""
    if ratio < UNEVEN or max(map(len, batches)) == 1:
        return
    logger.warning(
        "%d batches for %d processes: the largest share is %.1f times the mean; smaller batches "
        "(--max-tokens or --batch-size) make shares even",
        len(batches),
        count,
        ratio,
    )
