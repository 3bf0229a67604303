"""Utterances that are too long to train on or to validate with, each accounted for in the log."""

from __future__ import annotations

import logging
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from fairseq.data import ConcatDataset, FairseqDataset, ResamplingDataset
from fairseq.data.audio.speech_to_text_dataset import SpeechToTextDatasetCreator
from numpy.typing import NDArray

from fbk_xattn.data.dataset import SpeechToTextCTCDataset
from fbk_xattn.errors import InputError

logger = logging.getLogger(__name__)

MAX_TRAIN_FRAMES = 3000
FRAMES_PER_SECOND = 100
SKIP_FLAG = "--skip-invalid-size-inputs-valid-test"
# How many utterances a line in the log names.
_NAMED = 3


@dataclass(frozen=True)
class Limit:
    """Greatest size that fits, what it counts, and what to change for another one."""

    size: float
    unit: str
    flag: str

    def exceeded(self, size: float) -> str:
        """Say that ``size`` is too much."""
        return f"{size} {self.unit}, expected at most {self.size:g} ({self.flag})"


class LengthFilter:
    """Leaves out utterances that are too long, with one line in the log for each split.

    For training the limit in frames is the least of ``--max-train-frames``,
    ``--max-source-positions``, ``--max-tokens`` and what the model takes; for validation
    ``--max-train-frames`` does not count. Target texts (``--max-target-positions``) are counted in
    tokens without language tag and eos, as fairseq does.
    """

    def __init__(self, args: Namespace) -> None:
        """Take the limits from the flags.

        Raises:
            InputError: ``--max-train-frames`` is below 1.
        """
        # Checkpoints of the published system do not know the flag.
        self._max_train_frames = getattr(args, "max_train_frames", MAX_TRAIN_FRAMES)
        if self._max_train_frames < 1:
            raise InputError(f"--max-train-frames {self._max_train_frames}: expected at least 1")
        self._args = args
        self._told: set[Any] = set()

    def filter(
        self,
        indices: NDArray[np.int64],
        dataset: FairseqDataset,
        max_positions: tuple[float, float],
        leave_out: bool,
    ) -> NDArray[np.int64]:
        """Return those of ``indices`` that fit.

        Called for every epoch; the log has its line after the first.

        Args:
            indices: Into ``dataset``.
            dataset: A split, or several that are resampled.
            max_positions: Frames and target tokens that flags and model allow.
            leave_out: Whether an utterance may be left out at all.

        Raises:
            InputError: One is too long and ``leave_out`` is false, or none is left.
        """
        splits = _splits(dataset)
        limits = self._limits(splits[0].is_train_split, max_positions)
        for split in splits:
            told = (split.split, limits, leave_out)
            if told not in self._told:
                self._told.add(told)
                _tell(split, limits, leave_out)
        sizes = np.array([dataset.size(i) for i in indices]).reshape(-1, 2)
        return indices[(sizes <= [limit.size for limit in limits]).all(axis=1)]

    def _limits(self, is_train: bool, max_positions: tuple[float, float]) -> tuple[Limit, Limit]:
        """Return the limits of frames and of target tokens, each with the flag that sets it."""
        frames, tokens = max_positions
        args = self._args
        # fairseq has put its flags and the model into one number. The first of equals is named.
        rest = f"--max-tokens{'' if is_train else ', --max-tokens-valid'} or the model"
        of_frames = {
            "--max-train-frames": self._max_train_frames if is_train else float("inf"),
            "--max-source-positions": args.max_source_positions,
            rest: frames,
        }
        of_tokens = {
            "--max-target-positions": args.max_target_positions,
            rest: tokens,
        }
        flag, size = min(of_frames.items(), key=lambda item: item[1])
        text_flag, text_size = min(of_tokens.items(), key=lambda item: item[1])
        return Limit(size, "frames", flag), Limit(text_size, "target tokens", text_flag)


def _splits(dataset: FairseqDataset) -> list[SpeechToTextCTCDataset]:
    """Return what a dataset is made of, each split with all its utterances."""
    if isinstance(dataset, ConcatDataset):
        return [resampled.dataset for resampled in dataset.datasets]
    return [dataset]


def _tell(dataset: SpeechToTextCTCDataset, limits: tuple[Limit, Limit], leave_out: bool) -> None:
    """Count in the log what does not fit, or refuse it."""
    sizes = np.array([dataset.n_frames, dataset.tgt_lens]).T
    exceeds = sizes > [limit.size for limit in limits]
    # One that exceeds both counts once, so that the lines add up.
    exceeds[:, 1] &= ~exceeds[:, 0]
    counts = []
    for limit, lengths, too_long in zip(limits, sizes.T, exceeds.T, strict=True):
        (indices,) = np.nonzero(too_long)
        if not len(indices):
            continue
        if not leave_out:
            first = indices[0]
            raise InputError(
                f"{dataset.split}, utterance {dataset.ids[first]!r}: "
                f"{limit.exceeded(lengths[first])}; {SKIP_FLAG} leaves such utterances out"
            )
        counts.append(_count(dataset, limit, lengths, indices))
    if exceeds.any(axis=1).all():
        raise InputError(f"{'; '.join(counts)}; none is left, expected some that fit")
    for count in counts:
        # INFO is what fairseq shows of the first process alone.
        logger.info("%s", count)


def _count(
    dataset: SpeechToTextCTCDataset,
    limit: Limit,
    lengths: NDArray[np.int64],
    indices: NDArray[np.int64],
) -> str:
    """Return the line that says how many exceed a limit, and which are the first."""
    seconds = f"{limit.size / FRAMES_PER_SECOND:g} s, " if limit.unit == "frames" else ""
    named = [f"{dataset.ids[i]} ({lengths[i]} {limit.unit})" for i in indices[:_NAMED]]
    return (
        f"{dataset.split}: {len(indices)} of {len(dataset)} utterances left out, longer than "
        f"{limit.size:g} {limit.unit} ({seconds}{limit.flag}); first: {', '.join(named)}"
        f"{', ...' if len(indices) > _NAMED else ''}"
    )


class ResampledSplits(ConcatDataset):
    """fairseq's concatenation of resampled splits, every utterance of which is in some batch."""

    def __init__(
        self, splits: Sequence[SpeechToTextCTCDataset], alpha: float, seed: int, epoch: int
    ) -> None:
        """Resample splits against each other, by language pair.

        Args:
            splits: Each of one language pair.
            alpha: ``sampling_alpha`` of the data config.
            seed: Of the draws.
            epoch: Of the first draw.

        Raises:
            InputError: A split has several language pairs.
        """
        for split in splits:
            pairs = sorted({f"{row.src_lang}-{row.tgt_lang}" for row in split.rows})
            if len(pairs) != 1:
                raise InputError(
                    f"{split.split}.tsv: has the language pairs {', '.join(pairs)}, expected one "
                    f"in each manifest of --train-subset, as sampling_alpha is {alpha} in the data "
                    "config"
                )
        ratios = SpeechToTextDatasetCreator.get_size_ratios(splits, alpha)
        super().__init__(
            [
                ResamplingDataset(
                    split, size_ratio=ratio, seed=seed, epoch=epoch, replace=ratio >= 1.0
                )
                for split, ratio in zip(splits, ratios, strict=True)
            ]
        )

    def batch_by_size(
        self,
        indices: NDArray[np.int64],
        max_tokens: int | None = None,
        max_sentences: int | None = None,
        required_batch_size_multiple: int = 1,  # noqa: ARG002 - fairseq's signature
    ) -> list[NDArray[np.int64]]:
        """Group utterances into batches.

        fairseq cuts off the last batch, here that of the longest utterances, when its size is not a
        multiple of ``required_batch_size_multiple``.
        """
        batches: list[NDArray[np.int64]] = super().batch_by_size(
            indices, max_tokens, max_sentences, required_batch_size_multiple=1
        )
        return batches
