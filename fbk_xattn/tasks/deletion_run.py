"""From the maps of an attribution store to what is decoded without what they rank highest."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fbk_xattn.analysis.ranking import ENCODER_STEPS, RANKING_MAPS, ascending, removed
from fbk_xattn.data.dataset import SpeechToTextCTCDataset
from fbk_xattn.data.manifest import ManifestRow
from fbk_xattn.generation.removal import (
    Copy,
    RemovalGenerator,
    batches_of_copies,
    copies_without_features,
    encoder_output_of_copies,
    select_copies,
)
from fbk_xattn.store import AttributionStore, CurveStore, DecodedCurve, DecodedStep
from fbk_xattn.tasks.accounting import Account
from fbk_xattn.tasks.batches import keep_utterances, out_of_memory
from fbk_xattn.tasks.deletion_options import DeletionOptions
from fbk_xattn.tasks.stored_data import check_features, check_texts
from fbk_xattn.tasks.writing import write

Hypothesis = dict[str, Any]
# A batch and its prefix tokens to the hypotheses of each item.
Decode = Callable[[dict[str, Any], Tensor | None], list[list[Hypothesis]]]


class DeletionRun:
    """Decodes the utterances of batches at every step and writes them; skips those there."""

    def __init__(
        self,
        options: DeletionOptions,
        maps: AttributionStore,
        store: CurveStore,
        account: Account,
        text_of: Callable[[Hypothesis], str],
        max_tokens: int | None,
        max_sentences: int | None,
    ) -> None:
        """Prepare.

        Args:
            options: Of the run.
            maps: Store that the utterances are ranked by.
            store: Created with this run's parameters.
            account: Of this process.
            text_of: Detokenises a hypothesis.
            max_tokens: ``--max-tokens``.
            max_sentences: ``--batch-size``.
        """
        self.options = options
        self.maps = maps
        self.store = store
        self.account = account
        self.text_of = text_of
        self.max_tokens = max_tokens
        self.max_sentences = max_sentences
        # What is stored takes no time.
        account.costs.update({i: 0.0 for i in account.costs if i in store})

    def process(
        self,
        dataset: SpeechToTextCTCDataset,
        batch: dict[str, Any],
        generator: RemovalGenerator,
        prefix_tokens: Tensor | None,
        decode: Decode,
    ) -> list[list[Hypothesis]]:
        """Decode and write the utterances of a batch that the store lacks.

        An utterance that fails is noted in the account, taken out of the batch, and does not stop
        the others.

        Args:
            dataset: That the batch is from.
            batch: On the device of the model.
            generator: Beam search.
            prefix_tokens: ``(B, n_prefix)``, forced tokens.
            decode: Runs the beam search.

        Returns:
            The hypothesis of each utterance at the step that removes nothing, for fairseq to print.

        Raises:
            SystemExit: A signal asked to stop, or the store cannot be written to.
        """
        indices = batch["id"].tolist()
        ids = [dataset.ids[index] for index in indices]
        n_frames = batch["net_input"]["src_lengths"].tolist()
        masks: dict[int, NDArray[np.bool_]] = {}
        found: dict[int, Hypothesis] = {}
        # Processes may share a batch: the others take care of the other rows.
        own = [row for row, name in enumerate(ids) if self.account.is_own(name)]
        for row in own:
            utterance_id = ids[row]
            self.account.stop_if_asked()
            manifest_row = dataset.rows[indices[row]]
            features = batch["net_input"]["src_tokens"][row, : n_frames[row]]
            try:
                if utterance_id in self.store:
                    fbank = self.maps.fbank(utterance_id)
                    check_features(self.maps.file(utterance_id), fbank, features)
                    found[row] = self._stored_hypothesis(manifest_row)
                    self.account.present.append(utterance_id)
                else:
                    masks[row] = self._masks(manifest_row, features)
            except Exception as error:  # whatever it is, the others go on
                self.account.fail([utterance_id], error)
        try:
            self._decode(dataset, batch, masks, generator, prefix_tokens, decode)
        except Exception as error:  # whatever it is, the other batches go on
            left = set(self.account.left)
            failed = [ids[row] for row in masks if ids[row] in left]
            self.account.fail(failed, error, out_of_memory(error, batch))
        for row in masks:
            if ids[row] in self.store:
                found[row] = self._stored_hypothesis(dataset.rows[indices[row]])
        kept = sorted(found)
        keep_utterances(batch, kept)
        return [[found[row]] for row in kept]

    def _masks(self, row: ManifestRow, features: Tensor) -> NDArray[np.bool_]:
        """Return what each step removes, ``(P, T, F)``, ``(P, T)`` or ``(P, T')``.

        Raises:
            InputError: The maps are not there, or not of these features ``(T, F)``.
        """
        attribution = self.maps.read(row.id)
        check_features(self.maps.file(row.id), attribution.fbank, features)
        ranked = self.options.ranking.sentence_map(attribution)
        flat = removed(ascending(ranked), self.options.percentages, self.options.mode)
        return flat.reshape(-1, *ranked.shape)

    def _decode(
        self,
        dataset: SpeechToTextCTCDataset,
        batch: dict[str, Any],
        masks: dict[int, NDArray[np.bool_]],
        generator: RemovalGenerator,
        prefix_tokens: Tensor | None,
        decode: Decode,
    ) -> None:
        """Decode all copies of a batch; write an utterance as soon as its last is decoded."""
        n_steps = len(self.options.percentages)
        of_encoder = RANKING_MAPS[self.options.ranking.map_name].unit == ENCODER_STEPS
        encoder_out = None
        if of_encoder and masks:
            with torch.no_grad():
                (encoder_out,) = generator.model.forward_encoder(encoder_input(batch))
        n_frames = batch["net_input"]["src_lengths"].tolist()
        steps: dict[int, list[DecodedStep]] = {row: [] for row in masks}
        started = time.monotonic()
        for copies in batches_of_copies(
            list(masks), n_steps, n_frames, self.max_tokens, self.max_sentences
        ):
            self.account.stop_if_asked()
            chosen = [masks[copy.row][copy.step] for copy in copies]
            prefix = None if prefix_tokens is None else prefix_tokens[[c.row for c in copies]]
            if encoder_out is None:
                beams = decode(copies_without_features(batch, copies, chosen), prefix)
            else:
                beams = self._decode_states(
                    batch, encoder_out, copies, chosen, generator, prefix, decode
                )
            for copy, (best, *_) in zip(copies, beams, strict=True):
                steps[copy.row].append(self._step(best))
                if len(steps[copy.row]) == n_steps:
                    index = int(batch["id"][copy.row])
                    curve = self._curve(dataset, index, masks[copy.row], steps.pop(copy.row))
                    if write(self.store, curve, self.account):
                        now = time.monotonic()
                        self.account.finish(curve.id, now - started)
                        started = now

    def _decode_states(
        self,
        batch: dict[str, Any],
        encoder_out: dict[str, Any],
        copies: list[Copy],
        chosen: list[NDArray[np.bool_]],
        generator: RemovalGenerator,
        prefix: Tensor | None,
        decode: Decode,
    ) -> list[list[Hypothesis]]:
        (model,) = generator.model.models
        generator.model.given = encoder_output_of_copies(model, encoder_out, copies, chosen)
        try:
            return decode(select_copies(batch, copies), prefix)
        finally:
            generator.model.given = None

    def _step(self, hypothesis: Hypothesis) -> DecodedStep:
        return DecodedStep(
            hypothesis=self.text_of(hypothesis),
            token_ids=hypothesis["tokens"].cpu().numpy().astype(np.int64),
            positional_scores=hypothesis["positional_scores"].float().cpu().numpy(),
            score=float(hypothesis["score"]),
        )

    def _curve(
        self,
        dataset: SpeechToTextCTCDataset,
        index: int,
        masks: NDArray[np.bool_],
        steps: list[DecodedStep],
    ) -> DecodedCurve:
        row = dataset.rows[index]
        flat = masks.reshape(len(masks), -1)
        return DecodedCurve(
            id=row.id,
            src_lang=row.src_lang,
            tgt_lang=row.tgt_lang,
            src_text=row.src_text,
            tgt_text=row.tgt_text,
            percentages=self.options.percentages,
            n_removed=flat.sum(axis=1),
            n_units=flat.shape[1],
            steps=tuple(steps),
        )

    def _stored_hypothesis(self, row: ManifestRow) -> Hypothesis:
        """Return what was decoded with nothing removed, as beam search returns it.

        Raises:
            InputError: The file is damaged, or of other data.
        """
        curve = self.store.read(row.id)
        check_texts(self.store.file(row.id), curve, row)
        step = curve.unmodified
        return {
            "tokens": torch.from_numpy(step.token_ids),
            "score": torch.tensor(step.score),
            "positional_scores": torch.from_numpy(step.positional_scores),
            "attention": None,
            "alignment": None,
        }


def encoder_input(batch: dict[str, Any]) -> dict[str, Tensor]:
    """Return what the encoder reads of a batch."""
    return {n: batch["net_input"][n] for n in ("src_tokens", "src_lengths")}
