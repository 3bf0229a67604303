"""How many copies go at once, and what happens when they are too many."""

from __future__ import annotations

import logging
import weakref
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fbk_xattn.explain import batching
from fbk_xattn.explain.batching import ShrinkingBatch, perturbations_per_eval


class Sizes:
    """Features on a device that need not be there."""

    def __init__(self, n_frames, is_cuda):
        self.n_frames, self.is_cuda, self.device = n_frames, is_cuda, "cuda:1"

    def __len__(self):
        return self.n_frames


def utterance(n_frames, n_tokens=10, n_symbols=50, dim=16, is_cuda=False):
    return SimpleNamespace(
        features=Sizes(n_frames, is_cuda),
        logits=torch.zeros(n_tokens, n_symbols),
        encoder_out=torch.zeros(-(-n_frames // 4), dim),
    )


@pytest.fixture
def gpu(monkeypatch):
    """Stand in for the memory of the utterance's device, in bytes."""
    memory = SimpleNamespace(free=10**12, reserved=0, allocated=0)

    def told(amount):
        def of(device):
            assert device == "cuda:1"
            return amount()

        return of

    monkeypatch.setattr(torch.cuda, "mem_get_info", told(lambda: (memory.free, 2 * memory.free)))
    monkeypatch.setattr(torch.cuda, "memory_reserved", told(lambda: memory.reserved))
    monkeypatch.setattr(torch.cuda, "memory_allocated", told(lambda: memory.allocated))
    return memory


@pytest.mark.parametrize("target", ["input", "encoder"])
@pytest.mark.parametrize(
    ("n_frames", "copies"), [(1, 20_000), (100, 200), (20_000, 1), (20_001, 1), (60_000, 1)]
)
def test_on_a_cpu_frames_decide(target, n_frames, copies):
    assert perturbations_per_eval(utterance(n_frames), target) == copies


@pytest.mark.parametrize(
    ("target", "n_frames", "n_tokens", "copies"),
    [
        ("input", 1000, 10, 1024),
        ("input", 10, 10, batching.LARGEST),
        ("input", 2_000_000, 10, 1),
        ("encoder", 1000, 100, 1280),
        ("encoder", 1000, 1, batching.LARGEST),
        ("encoder", 1000, 200_000, 1),
    ],
)
def test_on_a_gpu_frames_or_tokens_decide_while_there_is_memory(
    gpu, target, n_frames, n_tokens, copies
):
    gpu.free = 10**12
    sizes = utterance(n_frames, n_tokens, is_cuda=True)
    assert perturbations_per_eval(sizes, target) == copies


@pytest.mark.parametrize("target", ["input", "encoder"])
def test_on_a_gpu_there_are_fewer_copies_with_less_memory_and_one_at_least(gpu, target):
    sizes = utterance(1000, 30, n_symbols=8000, dim=512, is_cuda=True)
    copies = []
    for gpu.free in (10**12, 10**10, 10**9, 10**6, 0):
        copies.append(perturbations_per_eval(sizes, target))
    assert copies == sorted(copies, reverse=True)
    assert copies[0] > copies[1] > copies[2] > 1
    assert copies[-1] == 1


def test_what_torch_holds_for_later_counts_as_free(gpu):
    sizes = utterance(1000, 30, n_symbols=8000, dim=512, is_cuda=True)
    gpu.free = 5 * 10**9
    expected = perturbations_per_eval(sizes, "input")
    gpu.free, gpu.reserved, gpu.allocated = 10**9, 6 * 10**9, 2 * 10**9
    assert perturbations_per_eval(sizes, "input") == expected


class Room:
    """Work that has room for so many rows; notes how many it was given."""

    def __init__(self, rows):
        self.rows, self.tried = rows, []

    def __call__(self, part):
        self.tried.append(len(part))
        if len(part) > self.rows:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return part.clone()


def rows(n):
    return torch.arange(2 * n).reshape(n, 2)


@given(n=st.integers(0, 40), size=st.integers(1, 50), room=st.integers(1, 50))
def test_results_are_complete_and_in_order(n, size, room):
    batch, work = ShrinkingBatch(size), Room(room)
    results = list(batch.run(rows(n), work))
    assert [done for done, _ in results] == [len(part) for _, part in results]
    assert torch.equal(torch.cat([rows(0), *(part for _, part in results)]), rows(n))
    assert all(done <= min(size, room) for done, _ in results)


def test_the_size_halves_until_there_is_room_and_stays_down(caplog):
    batch, work = ShrinkingBatch(16), Room(3)
    with caplog.at_level(logging.WARNING):
        assert [done for done, _ in batch.run(rows(10), work)] == [2, 2, 2, 2, 2]
        assert [done for done, _ in batch.run(rows(5), work)] == [2, 2, 1]
    assert work.tried == [10, 5, 2, 2, 2, 2, 2, 2, 2, 1]
    assert batch.size == 2
    assert caplog.messages == [
        "no memory on the device for 10 occluded copies at once, going on with 5",
        "no memory on the device for 5 occluded copies at once, going on with 2",
    ]


def test_memory_may_run_out_in_the_middle(caplog):
    batch, work = ShrinkingBatch(4), Room(4)
    results = batch.run(rows(9), work)
    assert next(results)[0] == 4
    work.rows = 2
    assert [done for done, _ in results] == [2, 2, 1]
    assert len(caplog.messages) == 1


def test_no_room_for_a_single_row_is_an_error():
    batch, work = ShrinkingBatch(4), Room(0)
    with pytest.raises(torch.OutOfMemoryError):
        list(batch.run(rows(4), work))
    assert work.tried == [4, 2, 1]


def test_another_error_is_not_taken_for_a_lack_of_memory():
    def work(_part):
        raise RuntimeError("shapes differ")

    batch = ShrinkingBatch(4)
    with pytest.raises(RuntimeError, match="shapes differ"):
        list(batch.run(rows(4), work))
    assert batch.size == 4


def test_a_failed_pass_holds_nothing_when_memory_is_given_back(monkeypatch):
    held, alive = [], []

    def work(part):
        copies = part.clone()
        held.append(weakref.ref(copies))
        if len(part) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return 0

    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: alive.append(held[-1]() is not None))
    assert len(list(ShrinkingBatch(4).run(rows(4), work))) == 4
    assert alive == [False, False]
