"""From the hypotheses of a batch to files of the attribution store."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
import sys
import time
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fairseq.data import Dictionary
from fairseq.models import FairseqEncoderDecoderModel

from fbk_xattn import __version__
from fbk_xattn.data.dataset import SpeechToTextCTCDataset
from fbk_xattn.data.manifest import ManifestRow
from fbk_xattn.errors import InputError
from fbk_xattn.explain import (
    Explainer,
    JointExplainer,
    LevelScores,
    SegmentationAhead,
    Utterance,
    perturbations_per_eval,
    token_saliency,
)
from fbk_xattn.generation.recorder import CrossAttentionRecorder
from fbk_xattn.generation.teacher_forcing import TeacherForced, teacher_force
from fbk_xattn.models.inference import inference_copy
from fbk_xattn.store import Attribution, AttributionStore, SegmentLevel, SegmentSaliency
from fbk_xattn.tasks.accounting import Account
from fbk_xattn.tasks.options import ExplanationOptions
from fbk_xattn.tasks.progress import MaskProgress
from fbk_xattn.tasks.stored_data import check_features, check_texts, check_vocabulary
from fbk_xattn.tasks.writing import Writing


class AttributionRun:
    """Explains the utterances of batches and writes them; skips those that are there."""

    def __init__(
        self,
        options: ExplanationOptions,
        store: AttributionStore,
        model: FairseqEncoderDecoderModel,
        dictionary: Dictionary,
        account: Account,
    ) -> None:
        """Prepare.

        Args:
            options: Of the run.
            store: Created with this run's parameters.
            model: In evaluation mode, on its device.
            dictionary: Of target tokens.
            account: Of this process.
        """
        self.options = options
        self.store = store
        self.model = model
        self.dictionary = dictionary
        self.account = account
        self._segmenter = SegmentationAhead(options.input_segmenter)
        self._writing = Writing(store, account)
        # What is stored takes no time.
        account.costs.update({i: 0.0 for i in account.costs if i in store})

    def stored(
        self, dataset: SpeechToTextCTCDataset, batch: dict[str, Any], rows: list[int]
    ) -> dict[int, dict[str, Any]]:
        """Read utterances that are there, and settle them in the account.

        Those whose file is damaged, or of other data than these, fail.

        Args:
            dataset: That the batch is from.
            batch: With the features.
            rows: Of utterances in the store.

        Returns:
            By row, the hypothesis of each utterance that did not fail, as beam search returns it.
        """
        found = {}
        for row in rows:
            index = int(batch["id"][row])
            try:
                found[row] = self._stored_hypothesis(
                    dataset.rows[index],
                    batch["net_input"]["src_tokens"][row, : batch["net_input"]["src_lengths"][row]],
                )
            except InputError as error:
                self.account.fail([dataset.ids[index]], error)
            else:
                self.account.present.append(dataset.ids[index])
        return found

    def _stored_hypothesis(self, row: ManifestRow, features: torch.Tensor) -> dict[str, Any]:
        attribution, file = self.store.read(row.id), self.store.file(row.id)
        check_texts(file, attribution, row)
        check_features(file, attribution.fbank, features)
        check_vocabulary(file, attribution, self.dictionary)
        return {
            "tokens": torch.from_numpy(attribution.token_ids),
            "score": torch.tensor(attribution.score),
            "positional_scores": torch.from_numpy(attribution.positional_scores),
            "attention": None,
            "alignment": None,
        }

    @torch.no_grad()
    def _teacher_force(
        self, net_input: dict[str, Any], encoder_out: dict[str, Any], hypotheses: list[torch.Tensor]
    ) -> list[TeacherForced]:
        """Force the decoder along the hypotheses of a batch.

        Encoders that padding reaches, as it does fairseq's own, encode each utterance alone, as its
        occluded copies are: explanations depend on no other utterance.
        """
        pad, eos = self.dictionary.pad(), self.dictionary.eos()
        recorder = self.options.recorder(self.model.decoder)
        if len(hypotheses) == 1 or getattr(self.model.encoder, "padding_invariant", False):
            return teacher_force(self.model, encoder_out, hypotheses, pad, eos, recorder)
        views = []
        for i, hypothesis in enumerate(hypotheses):
            lengths = net_input["src_lengths"][i : i + 1]
            features = net_input["src_tokens"][i : i + 1, : int(lengths)]
            alone = self.model.encoder(src_tokens=features, src_lengths=lengths)
            views += teacher_force(self.model, alone, [hypothesis], pad, eos, recorder)
        return views

    def process(
        self,
        dataset: SpeechToTextCTCDataset,
        batch: dict[str, Any],
        encoder_out: dict[str, Any],
        hypotheses: list[dict[str, Any]],
        texts: list[str],
        n_prefix: int,
    ) -> None:
        """Explain and write the utterances of a batch that are this process's and not in the store.

        An utterance that fails is noted in the account and does not stop the others.

        Args:
            dataset: That the batch is from.
            batch: On the device of the model.
            encoder_out: Of the batch.
            hypotheses: The best one of each utterance.
            texts: Detokenised hypotheses.
            n_prefix: Forced tokens at the beginning of each hypothesis.

        Raises:
            SystemExit: A signal asked to stop before the next utterance, or the store cannot be
                written to (for example, the disk is full), which would go on for every utterance.
        """
        views = self._teacher_force(
            batch["net_input"],
            encoder_out,
            [hypothesis["tokens"].long() for hypothesis in hypotheses],
        )
        lengths = batch["net_input"]["src_lengths"].tolist()
        todo: list[tuple[int, int, Utterance]] = []
        for i, index in enumerate(batch["id"].tolist()):
            utterance_id = dataset.ids[index]
            if not self.account.is_own(utterance_id):
                continue
            if utterance_id in self.store:
                self.stored(dataset, batch, [i])
                continue
            features, view = batch["net_input"]["src_tokens"][i, : lengths[i]], views[i]
            utterance = Utterance(
                utterance_id, features, view.encoder_out, view.prev_output_tokens, view.logits
            )
            todo.append((i, index, utterance))
        following = [utterance for _, _, utterance in todo[1:]]
        try:
            for i, index, utterance in todo:
                # What a signal ends is told how many are left: the one under way is none of them.
                self._writing.collect(wait=self.account.signals.received is not None)
                self.account.stop_if_asked()
                started = time.monotonic()
                if following and "input" in self.options.targets:
                    self._segmenter.announce(following.pop(0))
                row = dataset.rows[index]
                try:
                    attribution = self._explain(
                        row, utterance, views[i], hypotheses[i], texts[i], n_prefix
                    )
                except Exception as error:  # whatever it is, the others go on
                    self._writing.collect()
                    self.account.fail([utterance.id], error)
                else:
                    self._writing.write(attribution, time.monotonic() - started)
        finally:
            self._writing.collect()

    def _explain(
        self,
        row: ManifestRow,
        utterance: Utterance,
        view: TeacherForced,
        hypothesis: dict[str, Any],
        text: str,
        n_prefix: int,
    ) -> Attribution:
        scores = {
            explainer.target: self._scores(explainer, utterance)
            for explainer in self.options.explainers(self._segmenter)
        }
        features = utterance.features
        token_ids = hypothesis["tokens"].cpu()
        return Attribution(
            id=row.id,
            speaker=row.speaker,
            src_lang=row.src_lang,
            tgt_lang=row.tgt_lang,
            src_text=row.src_text,
            tgt_text=row.tgt_text,
            hypothesis=text,
            tokens=tuple(self.dictionary[token] for token in token_ids.tolist()),
            token_ids=token_ids.numpy(),
            positional_scores=hypothesis["positional_scores"].float().cpu().numpy(),
            score=float(hypothesis["score"]),
            n_prefix=n_prefix,
            frames_per_step=frames_per_step(self.model, len(features), len(view.encoder_out)),
            fbank=features.float().cpu().numpy(),
            cross_attention=(
                None if view.cross_attention is None else view.cross_attention.cpu().numpy()
            ),
            input_saliency=segment_saliency(scores["input"]) if "input" in scores else None,
            encoder_saliency=(
                segment_saliency(scores["encoder"]).dense() if "encoder" in scores else None
            ),
            token_saliency=token_saliency(scores.get("input", [])),
        )

    def _scores(
        self, explainer: Explainer | JointExplainer, utterance: Utterance
    ) -> list[LevelScores]:
        options, target = self.options, explainer.target
        count = MaskProgress(self.account.log, utterance.id, target, options.num_masks)

        def progress(n_masks: int) -> None:
            self._writing.collect(wait=False)
            count(n_masks)

        scores = explainer.explain(
            self._occluded_model,
            utterance,
            options.num_masks,
            options.seed,
            options.perturbations_per_eval or perturbations_per_eval(utterance, target),
            progress,
        )
        if not all(np.isfinite(level.numerator).all() for level in scores):
            cure = "" if options.dtype == torch.float32 else "; fp32 has a larger range"
            raise ValueError(
                f"{target} saliency has infinite or undefined scores with --explanation-precision "
                f"{options.explanation_precision}, expected finite ones{cure}"
            )
        return scores

    @cached_property
    def _occluded_model(self) -> FairseqEncoderDecoderModel:
        """What occluded copies go through."""
        return inference_copy(self.model, self.options.dtype)


def check_explainable(model: FairseqEncoderDecoderModel, options: ExplanationOptions) -> None:
    """Check, before anything is decoded, that a model can be explained as the options ask.

    Raises:
        InputError: The decoder gives no distribution over the vocabulary, or has no cross-attention
            that is to be stored or that encoder output is occluded in.
    """
    if getattr(model.decoder, "adaptive_softmax", None) is not None:
        raise InputError(
            f"{type(model.decoder).__name__} with adaptive softmax: expected a decoder whose "
            "output is logits of the vocabulary"
        )
    if options.save_cross_attention or "encoder" in options.targets:
        CrossAttentionRecorder(model.decoder)


def segment_saliency(scores: list[LevelScores]) -> SegmentSaliency:
    """Return the scores in the form of the store."""
    return SegmentSaliency(
        tuple(
            SegmentLevel(level.labels.astype("uint32"), level.numerator, level.denominator)
            for level in scores
        )
    )


def frames_per_step(model: FairseqEncoderDecoderModel, n_frames: int, n_steps: int) -> int:
    """Return the encoder's subsampling factor: its own word, or the power of two that fits."""
    known = getattr(model.encoder, "frames_per_step", None)
    if known is not None:
        return int(known)
    factor = 1
    while -(-n_frames // factor) > n_steps:
        factor *= 2
    return factor


def provenance(command: list[str] | None = None) -> dict[str, Any]:
    """Return versions and command line, for the store's ``meta.json``."""
    packages = ("torch", "numpy", "scipy", "scikit-image", "sentencepiece")
    return {
        "command": sys.argv if command is None else command,
        "versions": {
            "fbk_xattn": __version__,
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in packages},
        },
    }


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
