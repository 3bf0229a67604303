"""The dataset: features with transcript and target text."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from fairseq.data import Dictionary, data_utils
from fairseq.data.audio.speech_to_text_dataset import SpeechToTextDataset, SpeechToTextDatasetItem
from numpy.typing import NDArray
from torch import Tensor

from fbk_xattn.data.config import DataConfig
from fbk_xattn.data.features import load_features
from fbk_xattn.data.manifest import ManifestRow
from fbk_xattn.errors import InputError

logger = logging.getLogger(__name__)


@dataclass
class Item(SpeechToTextDatasetItem):
    """fairseq's item with the transcript.

    Attributes:
        transcript: ``(U,)`` token indices, eos last.
        failure: Why the utterance could not be loaded, in which case it has no tensors.
    """

    transcript: Tensor | None = None
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
                (``batch["failures"]``) instead of raised.

        Raises:
            InputError: An utterance's language has no tag in the vocabulary.
        """
        self.rows = list(rows)
        self.transcript_dictionary = transcript_dictionary
        self.bpe_src = tokenizers["bpe_src"]
        self.collect_failures = collect_failures
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

    def check_tgt_lang_tag(self) -> None:
        """Check that every target language has a tag in the vocabulary."""
        if not self.cfg.prepend_tgt_lang_tag:
            return
        for row in self.rows:
            tag = self.LANG_TAG_TEMPLATE.format(row.tgt_lang)
            if tag not in self.tgt_dict:
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
        text = self.tokenize(self.bpe_src, self.tokenize(self.pre_tokenizer, self.src_texts[index]))
        transcript = self.transcript_dictionary.encode_line(
            text, add_if_not_exist=False, append_eos=True
        )
        return Item(**vars(item), transcript=transcript.long())

    def _get_source_audio(self, index: int) -> Tensor:
        """Return the features ``(T, F)`` after the transforms of the data config.

        Replaces fairseq's loader, which needs torchaudio for every audio file.
        """
        n_bins = self.cfg.input_feat_per_channel * self.cfg.input_channels
        features = load_features(self.audio_paths[index], n_bins)
        if self.feature_transforms is not None:
            features = self.feature_transforms(features)
        return torch.from_numpy(features).float()

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
            (eos included) and ``ntokens``; and ``failures``, id to reason, when there are any.
        """
        failures = {self.ids[s.index]: s.failure for s in samples if s.failure is not None}
        samples = [s for s in samples if s.failure is None]
        batch = super().collater(samples, return_order=True)
        if batch:
            order = batch["order"] if return_order else batch.pop("order")
            batch["transcript"] = self._collate_transcripts(samples, order)
        if failures:
            batch["failures"] = failures
        return batch

    def _collate_transcripts(self, samples: list[Item], order: Tensor) -> dict[str, Any]:
        transcripts = [s.transcript for s in samples if s.transcript is not None]
        dictionary = self.transcript_dictionary
        target = data_utils.collate_tokens(transcripts, dictionary.pad(), dictionary.eos())
        lengths = torch.tensor([t.numel() for t in transcripts], dtype=torch.long)
        return {
            "target": target.index_select(0, order),
            "target_lengths": lengths.index_select(0, order),
            "ntokens": int(lengths.sum()),
        }
