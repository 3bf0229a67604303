"""From the hypotheses of a batch to files of the attribution store."""

from __future__ import annotations

import errno
import hashlib
import importlib.metadata
import platform
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

import torch
from fairseq.data import Dictionary
from fairseq.models import FairseqEncoderDecoderModel
from torch import Tensor

from fbk_xattn import __version__
from fbk_xattn.data.dataset import SpeechToTextCTCDataset
from fbk_xattn.explain import LevelScores, Utterance, token_saliency
from fbk_xattn.generation.teacher_forcing import TeacherForced, teacher_force
from fbk_xattn.store import Attribution, AttributionStore, SegmentLevel, SegmentSaliency
from fbk_xattn.tasks.accounting import Account
from fbk_xattn.tasks.options import ExplanationOptions
from fbk_xattn.tasks.progress import MaskProgress

# Frames of occluded copies in one pass. On two cores rates level off there for 2 to 5 s of speech.
CPU_FRAMES_PER_EVAL = 20_000
CUDA_FRAMES_PER_EVAL = 256_000
NO_SPACE = {errno.ENOSPC, errno.EDQUOT}
# Of one file: too large, or its name too long. Other files can be written.
OF_ONE_FILE = {errno.EFBIG, errno.ENAMETOOLONG}


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
        # What is stored takes no time.
        account.costs.update({i: 0.0 for i in account.costs if i in store})

    def stored_hypothesis(self, utterance_id: str) -> dict[str, Any]:
        """Return a hypothesis of the store as beam search returns them."""
        attribution = self.store.read(utterance_id)
        return {
            "tokens": torch.from_numpy(attribution.token_ids),
            "score": torch.tensor(attribution.score),
            "positional_scores": torch.from_numpy(attribution.positional_scores),
            "attention": None,
            "alignment": None,
        }

    def process(
        self,
        dataset: SpeechToTextCTCDataset,
        batch: dict[str, Any],
        encoder_out: dict[str, Any],
        hypotheses: list[dict[str, Any]],
        texts: list[str],
        n_prefix: int,
    ) -> None:
        """Explain and write the utterances of a batch that the store lacks.

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
        views = teacher_force(
            self.model,
            encoder_out,
            [hypothesis["tokens"].long() for hypothesis in hypotheses],
            self.dictionary.pad(),
            self.dictionary.eos(),
        )
        lengths = batch["net_input"]["src_lengths"].tolist()
        for i, index in enumerate(batch["id"].tolist()):
            utterance_id = dataset.ids[index]
            if utterance_id in self.store:
                self.account.present.append(utterance_id)
                continue
            self.account.stop_if_asked()
            started = time.monotonic()
            features = batch["net_input"]["src_tokens"][i, : lengths[i]]
            try:
                attribution = self._explain(
                    dataset, index, features, views[i], hypotheses[i], texts[i], n_prefix
                )
            except Exception as error:  # whatever it is, the others go on
                self.account.fail([utterance_id], error)
                continue
            if self._write(attribution):
                self.account.finish(utterance_id, time.monotonic() - started)

    def _write(self, attribution: Attribution) -> bool:
        """Write an utterance; return whether that went well.

        Raises:
            SystemExit: It did not, and would not for the others.
        """
        try:
            self.store.write(attribution)
        except OSError as error:
            if error.errno not in OF_ONE_FILE:
                self._abort_writing(error, attribution.id)
            self.account.fail([attribution.id], error)
            return False
        except ValueError as error:  # InputError for its id, or an array that cannot be stored
            self.account.fail([attribution.id], error)
            return False
        return True

    def _abort_writing(self, error: OSError, utterance_id: str) -> NoReturn:
        # Nobody wants a day of explanations that no file takes.
        cure = "free space" if error.errno in NO_SPACE else "make its folder writable"
        self.account.abort(
            f"{self.store.file(utterance_id)}: cannot be written ({error.strerror or error}); "
            f"{cure} and run the same command again, it goes on from what is stored"
        )

    def _explain(
        self,
        dataset: SpeechToTextCTCDataset,
        index: int,
        features: Tensor,
        view: TeacherForced,
        hypothesis: dict[str, Any],
        text: str,
        n_prefix: int,
    ) -> Attribution:
        row = dataset.rows[index]
        utterance = Utterance(
            row.id, features, view.encoder_out, view.prev_output_tokens, view.logits
        )
        scores = {
            explainer.target: explainer.explain(
                self.model,
                utterance,
                self.options.num_masks,
                self.options.seed,
                self._perturbations_per_eval(features),
                MaskProgress(self.account.log, row.id, explainer.target, self.options.num_masks),
            )
            for explainer in self.options.explainers()
        }
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
                view.cross_attention.cpu().numpy() if self.options.save_cross_attention else None
            ),
            input_saliency=segment_saliency(scores["input"]) if "input" in scores else None,
            encoder_saliency=(
                segment_saliency(scores["encoder"]).dense() if "encoder" in scores else None
            ),
            token_saliency=token_saliency(scores.get("input", [])),
        )

    def _perturbations_per_eval(self, features: Tensor) -> int:
        if self.options.perturbations_per_eval:
            return self.options.perturbations_per_eval
        frames = CUDA_FRAMES_PER_EVAL if features.is_cuda else CPU_FRAMES_PER_EVAL
        return max(1, frames // len(features))


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
