"""The dataset: features with transcript and target text."""

from __future__ import annotations

import logging
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from fairseq.data import Dictionary, data_utils
from fairseq.data.audio.speech_to_text_dataset import SpeechToTextDataset, SpeechToTextDatasetItem
from numpy.typing import NDArray
from torch import Tensor

from fbk_xattn.data.config import DataConfig
from fbk_xattn.data.features import check_length, load_features
from fbk_xattn.data.manifest import ManifestRow
from fbk_xattn.data.subwords import SubwordSampler
from fbk_xattn.errors import InputError

# What is drawn for an utterance in an epoch; SpecAugment, without a number, came first.
TARGET, TRANSCRIPT, TRANSCRIPT_AS_TARGET = range(3)

logger = logging.getLogger(__name__)


@dataclass
class Item(SpeechToTextDatasetItem):
    """fairseq's item with the transcript.

    Attributes:
        transcript: ``(U,)`` token indices, eos last.
        transcript_as_target: ``(U',)`` token indices of the transcript in the target vocabulary,
            after the tag of the source language, eos last.
        failure: Why the utterance could not be loaded, in which case it has no tensors.
    """

    transcript: Tensor | None = None
    transcript_as_target: Tensor | None = None
    failure: str | None = None


class SpeechToTextCTCDataset(SpeechToTextDataset):
    """Utterances of one or more manifests."""

    def __init__(
        self,
        split: str,
        rows: Sequence[ManifestRow],
        is_train_split: bool,
        config: DataConfig,
        target_dictionary: Dictionary,
        transcript_dictionary: Dictionary,
        tokenizers: dict[str, Any],
        collect_failures: bool = False,
        transcripts_as_targets: bool = False,
        seed: int = 1,
        samplers: Mapping[str, SubwordSampler] | None = None,
    ) -> None:
        """Create the dataset.

        Args:
            split: Its name, as in ``--gen-subset``.
            rows: Rows of the manifests, in order.
            is_train_split: Whether training transforms (SpecAugment) apply.
            config: The data configuration.
            target_dictionary: Vocabulary of ``tgt_text``, with the language tags.
            transcript_dictionary: Vocabulary of ``src_text``.
            tokenizers: ``pre``, ``bpe`` (target) and ``bpe_src`` (transcript), fairseq's encoders.
            collect_failures: Whether an utterance that cannot be loaded is reported in its batch
                (``batch["failures"]``) instead of raised; so is one of another length than its row
                says, as limits and batches count with that.
            transcripts_as_targets: Whether batches also hold transcripts in the form of targets.
            seed: Of the training transforms and of the order of equally long utterances.
            samplers: ``bpe`` and ``bpe_src``, in place of those of ``tokenizers`` when utterances
                are loaded; ``None`` for none (subword regularization).

        Raises:
            InputError: An utterance's language has no tag in the vocabulary.
        """
        self.rows = list(rows)
        self.transcript_dictionary = transcript_dictionary
        self.bpe_src = tokenizers["bpe_src"]
        self.collect_failures = collect_failures
        self.transcripts_as_targets = transcripts_as_targets
        self.seed = seed
        # Shared with the processes that load data, which live for all of the training.
        self.epoch = torch.ones((), dtype=torch.long).share_memory_()
        # fairseq counts the tokens of the target texts now, as they are segmented without sampling.
        self._samplers: Mapping[str, SubwordSampler] = {}
        super().__init__(
            split,
            is_train_split,
            config,
            audio_paths=[config.resolve_audio(row.audio) for row in self.rows],
            n_frames=[row.n_frames for row in self.rows],
            src_texts=[row.src_text for row in self.rows],
            tgt_texts=[row.tgt_text for row in self.rows],
            speakers=[row.speaker for row in self.rows],
            src_langs=[row.src_lang for row in self.rows],
            tgt_langs=[row.tgt_lang for row in self.rows],
            ids=[row.id for row in self.rows],
            tgt_dict=target_dictionary,
            pre_tokenizer=tokenizers["pre"],
            bpe_tokenizer=tokenizers["bpe"],
        )
        self._samplers = samplers or {}

    def check_tgt_lang_tag(self) -> None:
        """Check that every target language has a tag in the vocabulary."""
        if not self.cfg.prepend_tgt_lang_tag:
            return
        for row in self.rows:
            languages = [row.tgt_lang, *([row.src_lang] if self.transcripts_as_targets else [])]
            for tag in map(self.LANG_TAG_TEMPLATE.format, languages):
                if tag in self.tgt_dict:
                    continue
                known = ", ".join(s for s in self.tgt_dict.symbols if self.is_lang_tag(s)) or "none"
                raise InputError(
                    f"{self.split}, utterance {row.id!r}: no language tag {tag} in the vocabulary, "
                    f"expected one of: {known}"
                )

    def __getitem__(self, index: int) -> Item:
        """Load an utterance.

        Raises:
            InputError: Its features cannot be loaded (unless failures are collected).
        """
        try:
            item = super().__getitem__(index)
        except InputError as error:
            message = f"{self.split}, utterance {self.ids[index]!r}: {error}"
            if not self.collect_failures:
                raise InputError(message) from None
            return Item(index=index, source=torch.empty(0), failure=str(error))
        text = self._segmented(self.src_texts[index], "bpe_src", index, TRANSCRIPT)
        transcript = self.transcript_dictionary.encode_line(
            text, add_if_not_exist=False, append_eos=True
        )
        as_target = self._transcript_as_target(index) if self.transcripts_as_targets else None
        return Item(**vars(item), transcript=transcript.long(), transcript_as_target=as_target)

    def _transcript_as_target(self, index: int) -> Tensor:
        text = self._segmented(self.src_texts[index], "bpe", index, TRANSCRIPT_AS_TARGET)
        tokens = self.tgt_dict.encode_line(text, add_if_not_exist=False, append_eos=True).long()
        if not self.cfg.prepend_tgt_lang_tag:
            return tokens
        tag = self.get_lang_tag_idx(self.src_langs[index], self.tgt_dict)
        return torch.cat([tokens.new_tensor([tag]), tokens])

    def get_tokenized_tgt_text(self, index: int) -> str:
        """Return the subwords of the target text, separated by spaces."""
        return self._segmented(self.tgt_texts[index], "bpe", index, TARGET)

    def _segmented(self, text: str, tokenizer: str, index: int, drawn: int) -> str:
        text = self.tokenize(self.pre_tokenizer, text)
        if tokenizer in self._samplers:
            rng = np.random.default_rng(self._seeds(index, drawn))
            return self._samplers[tokenizer].encode(text, rng)
        return self.tokenize(self.bpe_src if tokenizer == "bpe_src" else self.bpe_tokenizer, text)

    def _seeds(self, index: int, *drawn: int) -> np.random.SeedSequence:
        """Return what draws start from: a function of seed, epoch, utterance and what is drawn."""
        utterance = zlib.crc32(self.ids[index].encode())
        return np.random.SeedSequence((self.seed, int(self.epoch), utterance, *drawn))

    def _get_source_audio(self, index: int) -> Tensor:
        """Return the features ``(T, F)`` after the transforms of the data config.

        What the transforms draw (SpecAugment) is a function of seed, epoch and utterance.

        Replaces fairseq's loader, which needs torchaudio for every audio file.

        Raises:
            InputError: They cannot be loaded or are of another length, or a transform overflows.
        """
        n_bins = self.cfg.input_feat_per_channel * self.cfg.input_channels
        features = load_features(self.audio_paths[index], n_bins)
        if self.collect_failures:
            check_length(self.audio_paths[index], len(features), self.n_frames[index])
        if self.feature_transforms is not None:
            # fairseq's transforms draw from numpy's global state, which no checkpoint holds: a
            # seed of its own gives an utterance the same draws after an interruption.
            with (
                data_utils.numpy_seed(int(self._seeds(index).generate_state(1)[0])),
                np.errstate(over="ignore", invalid="ignore"),  # what comes of it is checked below
            ):
                features = self.feature_transforms(features)
        source = torch.from_numpy(features).float()
        if not source.isfinite().all():
            transforms = self.cfg.get_feature_transforms(self.split, self.is_train_split)
            raise InputError(
                f"{self.audio_paths[index]}: features are not finite after "
                f"{', '.join(transforms['feature_transforms'])}, expected smaller values"
            )
        return source

    def set_epoch(self, epoch: int) -> None:
        """Take other draws than in the epoch before."""
        super().set_epoch(epoch)
        self.epoch.fill_(epoch)

    def ordered_indices(self) -> NDArray[np.int64]:
        """Return all utterances, longest first; training draws the order of equally long ones.

        The draw is of the seed alone. fairseq draws anew in the epoch in which a process starts, so
        that training would go on from a checkpoint with other batches.
        """
        order = np.arange(len(self))
        if self.shuffle:
            order = np.random.default_rng(self.seed).permutation(order)
        return np.lexsort([order, np.negative(self.n_frames)])

    def batch_by_size(
        self,
        indices: NDArray[np.int64],
        max_tokens: int | None = None,
        max_sentences: int | None = None,
        required_batch_size_multiple: int = 1,
    ) -> list[NDArray[np.int64]]:
        """Group utterances into batches, every one into some batch.

        fairseq cuts off the last batch when its size is not a multiple of
        ``required_batch_size_multiple``, and its utterances with it; here they keep their batch.
        """
        if len(indices) == 0:
            return []
        batches = super().batch_by_size(
            indices, max_tokens, max_sentences, required_batch_size_multiple
        )
        cut_off = indices[~np.isin(indices, np.concatenate([*batches, []]))]
        return [*batches, cut_off] if len(cut_off) else batches

    def collater(self, samples: list[Item], return_order: bool = False) -> dict[str, Any]:
        """Make a batch, longest utterance first.

        Args:
            samples: Items; an empty list (a shard's padding) gives an empty batch.
            return_order: Whether to keep ``order``, the permutation of ``samples``.

        Returns:
            fairseq's batch with ``transcript``: ``target`` ``(B, U)``, ``target_lengths`` ``(B,)``
            (eos included) and ``ntokens``; ``transcript_as_target``, likewise with
            ``prev_output_tokens``, if asked for; and ``failures``, id to reason, if there are any.
        """
        failures = {self.ids[s.index]: s.failure for s in samples if s.failure is not None}
        samples = [s for s in samples if s.failure is None]
        batch = super().collater(samples, return_order=True)
        if batch:
            order = batch["order"] if return_order else batch.pop("order")
            transcripts = [s.transcript for s in samples]
            batch["transcript"] = _collate(transcripts, order, self.transcript_dictionary)
            if self.transcripts_as_targets:
                as_targets = [s.transcript_as_target for s in samples]
                batch["transcript_as_target"] = _collate(as_targets, order, self.tgt_dict)
        if failures:
            batch["failures"] = failures
        return batch


def _collate(
    sequences: Sequence[Tensor | None], order: Tensor, dictionary: Dictionary
) -> dict[str, Any]:
    """Pad token sequences: as targets, and shifted as the input of a decoder."""
    present = [sequence for sequence in sequences if sequence is not None]
    pad, eos = dictionary.pad(), dictionary.eos()
    shifted = data_utils.collate_tokens(present, pad, eos, move_eos_to_beginning=True)
    lengths = torch.tensor([sequence.numel() for sequence in present], dtype=torch.long)
    return {
        "target": data_utils.collate_tokens(present, pad, eos).index_select(0, order),
        "target_lengths": lengths.index_select(0, order),
        "prev_output_tokens": shifted.index_select(0, order),
        "ntokens": int(lengths.sum()),
    }
