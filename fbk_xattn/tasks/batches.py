"""The batches of one process at generation, each of which settles the account."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from fairseq.data.iterators import EpochBatchIterating, EpochBatchIterator

from fbk_xattn.data.dataset import SpeechToTextCTCDataset
from fbk_xattn.tasks.accounting import Account
from fbk_xattn.tasks.sharding import Shard, own_utterances, utterance_cost
from fbk_xattn.tasks.stopping import Stopped


def own_iterator(
    iterator: EpochBatchIterator, dataset: SpeechToTextCTCDataset, shard: Shard, account: Account
) -> AccountedIterator:
    """Return an iterator over the batches that hold utterances of one process.

    Args:
        iterator: fairseq's, over all batches.
        dataset: That it reads.
        shard: The process. fairseq would give it every n-th batch.
        account: To settle; its utterances are set, those that failed already among them.
    """
    own = own_utterances(iterator.frozen_batches, dataset.n_frames, shard)
    account.costs = dict.fromkeys(account.failures, 0.0) | {
        dataset.ids[i]: utterance_cost(dataset.n_frames[i]) for part in own for i in part
    }
    batches = [batch for batch, part in zip(iterator.frozen_batches, own, strict=True) if part]
    chosen = EpochBatchIterator(
        dataset=dataset,
        collate_fn=_Collate(iterator.collate_fn),
        batch_sampler=batches,
        seed=iterator.seed,
        num_workers=iterator.num_workers,
        epoch=iterator.epoch,
        buffer_size=iterator.buffer_size,
    )
    return AccountedIterator(chosen, account)


def keep_utterances(batch: dict[str, Any], rows: list[int]) -> None:
    """Leave in a batch, for ``fairseq-generate`` to print and count, some of its utterances."""
    size = len(batch["id"])
    for part in (batch, batch["net_input"]):
        for name, value in part.items():
            if isinstance(value, torch.Tensor) and value.ndim and len(value) == size:
                part[name] = value[rows]
    batch["nsentences"] = len(rows)


def out_of_memory(error: Exception, batch: dict[str, Any]) -> str | None:
    """Return what to do about a batch that the device has no memory for; ``None`` otherwise."""
    on_cpu = isinstance(error, MemoryError) or "can't allocate memory" in str(error)
    if not on_cpu and not isinstance(error, torch.cuda.OutOfMemoryError):
        return None
    size, n_frames = batch["net_input"]["src_tokens"].shape[:2]
    return (
        f"out of memory in decoding a batch of {size} utterances of up to {n_frames} frames; a "
        "lower --max-tokens, --batch-size or --beam needs less"
    )


class _Collate:
    """Makes a batch; a process that loads data hands it over as bytes.

    Tensors would go through shared memory: where that is full, torch loses the batch, and the
    process that decodes waits for it for ever.
    """

    def __init__(self, collate: Callable[[list[Any]], dict[str, Any]]) -> None:
        self._collate = collate

    def __call__(self, samples: list[Any]) -> dict[str, Any] | bytes:
        batch = self._collate(samples)
        if torch.utils.data.get_worker_info() is None:
            return batch
        written = io.BytesIO()
        torch.save(batch, written)
        return written.getvalue()


def _unpacked(batch: dict[str, Any] | bytes) -> dict[str, Any]:
    if isinstance(batch, bytes):
        return torch.load(io.BytesIO(batch), weights_only=False)  # what this program has written
    return batch


class AccountedIterator:
    """fairseq's epoch iterator, whose batches settle an :class:`Account`."""

    def __init__(self, iterator: EpochBatchIterating, account: Account) -> None:
        """Wrap ``iterator``."""
        self._iterator = iterator
        self._account = account

    def __getattr__(self, name: str) -> Any:
        """Leave everything else to fairseq's iterator."""
        return getattr(self._iterator, name)

    def next_epoch_itr(self, **kwargs: Any) -> AccountedBatches:
        """Return the batches of one pass."""
        return AccountedBatches(self._iterator.next_epoch_itr(**kwargs), self._account)


class AccountedBatches:
    """Batches of one pass; notes utterances that could not be loaded and closes the account."""

    def __init__(self, batches: Any, account: Account) -> None:
        """Wrap fairseq's ``batches``."""
        self._batches = batches
        self._account = account
        self.n = getattr(batches, "n", 0)

    def __len__(self) -> int:
        """Return the number of batches."""
        return len(self._batches)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield the batches, then close the account; between them, look for signals to stop."""
        self._account.started = time.monotonic()
        with self._account.signals.caught():
            for batch in self._loaded():
                failures = batch.pop("failures", {})  # another process may have them to report
                own = {name: failures[name] for name in failures if self._account.is_own(name)}
                self._account.failures.update(own)
                self._account.stop_if_asked()
                yield batch
        self._account.close()

    def _loaded(self) -> Iterator[dict[str, Any]]:
        batches = iter(self._batches)
        while (batch := self._next(batches)) is not None:
            yield _unpacked(batch)

    def _next(self, batches: Iterator[Any]) -> Any:
        if not self._account.left:  # a signal during the last utterance changes nothing
            return next(batches, None)
        self._account.stop_if_asked()
        try:
            with self._account.signals.obeyed():
                return next(batches, None)
        except Stopped:
            self._account.stop_if_asked()
            raise
        except RuntimeError as error:
            # A signal to all processes of a job ends those that load data, too.
            self._account.stop_if_asked()
            if not str(error).startswith("DataLoader worker (pid"):
                raise
            goes_on = "; the same command goes on" if self._account.signals.listened_to else ""
            self._account.abort(f"a process that loads data died (out of memory?){goes_on}")
