"""Which share of the utterances this process takes, by what its launcher says."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fbk_xattn.errors import InputError

logger = logging.getLogger(__name__)

# Length of an utterance whose attention costs as much as the rest of the encoder. In a layer of the
# base preset an encoder step (4 frames) costs 24 d^2 multiplications in projections, feed-forwards
# and convolution, and 4 d for each step that it attends to: equal at 6 d steps, d = 512.
ATTENTION_FRAMES = 12_000


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
        world_size: ``--num-shards`` or ``--distributed-world-size``.
        rank: ``--shard-id`` or ``--distributed-rank``.
        device_id: ``--device-id``.
        environment: Variables to read, by default those of the process.

    Raises:
        InputError: The launcher's variables are not numbers, the rank is out of range, or flags
            give several processes of a launcher the same shard.
    """
    env = os.environ if environment is None else environment
    if world_size > 1:
        if rank == 0 and (launched := launched_shard(1, 0, device_id, env)).index > 0:
            raise InputError(
                f"--num-shards {world_size} without --shard-id in process {launched.index} of "
                f"{launched.count} ({launched.launcher}): every process would take shard 0; leave "
                "both out, as utterances are dealt out to these processes anyway, or give both"
            )
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


def own_utterances(
    batches: Sequence[Sequence[int]], n_frames: Sequence[int], shard: Shard
) -> list[list[int]]:
    """Return the utterances of one process, batch by batch.

    The utterances are laid in a line, each as long as its cost, and the line is cut into equal
    pieces: no share exceeds the mean by more than one utterance. Batches stay together but where a
    cut goes through one, and stay as fairseq made them whatever the number of processes: what pads
    an utterance decides how its results are rounded. So a batch that is cut is decoded by each
    process that has a part of it, which explains its own part. A process's batches come from all
    over the set, long and short.

    A function of its arguments alone, so processes that never talk to each other agree, and not of
    what a store holds, as processes that start one after the other would see different stores.

    Args:
        batches: Utterance numbers of each batch.
        n_frames: Of each utterance, feature frames (10 ms each).
        shard: The process.

    Returns:
        Of each batch the utterances of this process; every utterance is in one share.
    """
    total = sum(utterance_cost(n_frames[i]) for batch in batches for i in batch)
    own: list[list[int]] = [[] for _ in batches]
    before = 0.0
    for number in sorted(range(len(batches)), key=lambda i: (i % shard.count, i)):
        for utterance in batches[number]:
            cost = utterance_cost(n_frames[utterance])
            piece = int((before + cost / 2) / total * shard.count)
            if min(piece, shard.count - 1) == shard.index:
                own[number].append(utterance)
            before += cost
    return own
