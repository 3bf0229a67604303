"""The task ``speech_to_text_ctc``: ASR or ST with transcripts, and their explanations."""

from __future__ import annotations

import logging
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fairseq import utils
from fairseq.criterions import FairseqCriterion
from fairseq.data import Dictionary, FairseqDataset, encoders
from fairseq.logging import metrics
from fairseq.models import BaseFairseqModel, FairseqEncoderDecoderModel
from fairseq.tasks import register_task
from fairseq.tasks.speech_to_text import SpeechToTextTask

from fbk_xattn.checkpoints import load_checkpoint
from fbk_xattn.data.config import DataConfig, load_dictionary
from fbk_xattn.data.dataset import SpeechToTextCTCDataset
from fbk_xattn.data.manifest import ManifestRow, read_manifest
from fbk_xattn.errors import InputError, show_input_errors_in_one_line
from fbk_xattn.generation.generator import EncoderKeepingGenerator
from fbk_xattn.generation.removal import RemovalGenerator
from fbk_xattn.generation.repeated_ngrams import block_repeated_ngrams
from fbk_xattn.models.conformer import CTC_BLANK
from fbk_xattn.store import AttributionStore
from fbk_xattn.tasks.accounting import Account
from fbk_xattn.tasks.attribution_run import AttributionRun, check_explainable, provenance, sha256
from fbk_xattn.tasks.batches import keep_utterances, out_of_memory, own_iterator
from fbk_xattn.tasks.decoding import check_decoding, decoding_parameters
from fbk_xattn.tasks.deletion_options import DeletionOptions, add_deletion_args
from fbk_xattn.tasks.deletion_run import DeletionRun
from fbk_xattn.tasks.manifest_checks import check_stored_names, check_texts, check_unique_ids
from fbk_xattn.tasks.options import ExplanationOptions, add_explanation_args
from fbk_xattn.tasks.progress import ProgressLog
from fbk_xattn.tasks.sharding import Shard, launched_shard
from fbk_xattn.tasks.stopping import STOPPING, StopSignals
from fbk_xattn.tasks.training_checks import check_best_metric, check_training_flags
from fbk_xattn.tasks.training_lengths import LengthFilter, ResampledSplits
from fbk_xattn.tasks.training_losses import check_ignored_prefix, fit_model_to_criterion
from fbk_xattn.tasks.training_options import add_training_args, subword_samplers
from fbk_xattn.tasks.training_start import check_starting_checkpoint

logger = logging.getLogger(__name__)

OWN_DATASETS = (SpeechToTextCTCDataset, ResampledSplits)


@register_task("speech_to_text_ctc")
class SpeechToTextCTCTask(SpeechToTextTask):
    """Speech to text with transcripts for CTC; in ``fairseq-generate`` also explanations."""

    # Whether batches also hold transcripts in the form of targets (of the task for ASR and ST).
    transcripts_as_targets = False

    @classmethod
    def add_args(cls, parser: ArgumentParser) -> None:
        """Add fairseq's flags, those of training and those that ask for explanations."""
        super().add_args(parser)
        add_training_args(parser)
        add_explanation_args(parser)
        add_deletion_args(parser)

    @classmethod
    def setup_task(cls, args: Namespace, **_: Any) -> SpeechToTextCTCTask:
        """Check the flags and load the vocabularies.

        Raises:
            InputError: A wrong flag, data config or vocabulary.
        """
        show_input_errors_in_one_line()
        # fairseq's own complaints about a checkpoint are long and advise to trust it.
        for path in filter(None, utils.split_paths(getattr(args, "path", None) or "")):
            load_checkpoint(path, peek=True)
        config = DataConfig(Path(args.data) / args.config_yaml)
        target = load_dictionary(Path(args.data) / config.vocab_filename)
        transcript = load_dictionary(Path(args.data) / config.vocab_filename_src)
        return cls(args, target, transcript)

    def __init__(self, args: Namespace, target: Dictionary, transcript: Dictionary) -> None:
        """Create the task.

        Args:
            args: Parsed flags.
            target: Vocabulary of target texts.
            transcript: Vocabulary of transcripts; the CTC blank is appended.

        Raises:
            InputError: A wrong flag, or ``fairseq-interactive`` with language tags.
        """
        super().__init__(args, target)
        self.data_cfg = DataConfig(Path(args.data) / args.config_yaml)
        if hasattr(args, "buffer_size") and self.data_cfg.prepend_tgt_lang_tag:
            raise InputError(
                "fairseq-interactive: no way to give it the target languages, whose tags the data "
                "config prepends; expected fairseq-generate with a manifest"
            )
        transcript.add_symbol(CTC_BLANK)
        self.transcript_dictionary = transcript
        self.run: AttributionRun | None = None
        self.deletion_run: DeletionRun | None = None
        self._text_encoders: tuple[Any, ...] = ()
        # Of fairseq's commands, generate and interactive parse --beam, interactive --buffer-size.
        self.generating = hasattr(args, "beam") and not hasattr(args, "buffer_size")
        self.deletion = DeletionOptions.from_args(args) if self.generating else None
        self.options = (
            ExplanationOptions.from_args(args) if self.generating and not self.deletion else None
        )
        if self.deletion or self.options:
            check_decoding(args, "--attribution-dir")
        self.shard = self._shard() if self.generating else Shard()
        self.account = Account(
            ProgressLog(getattr(args, "log_format", None), self.shard.index),
            # Without a store nothing would be gained by ending later.
            StopSignals(STOPPING if self.options or self.deletion else ()),
        )
        self._lengths = LengthFilter(args)
        self._model: BaseFairseqModel | None = None  # to train
        self._metrics_checked = False
        self._batch_limits: tuple[int | None, int | None] = None, None  # frames, utterances

    def _shard(self) -> Shard:
        args = self.args
        count, index = args.distributed_world_size, args.distributed_rank
        # fairseq-generate has these flags, and itself takes no notice of them.
        if args.num_shards < 1:
            raise InputError(f"--num-shards {args.num_shards}: expected at least 1")
        for flag, shard_id, of, n_shards in (
            ("--shard-id", args.shard_id, "--num-shards", args.num_shards),
            ("--distributed-rank", index, "--distributed-world-size", count),
        ):
            if shard_id and n_shards == 1:
                raise InputError(f"{flag} {shard_id} without {of}: expected both")
        if args.num_shards > 1:
            if count > 1:
                raise InputError(
                    f"--num-shards {args.num_shards}: expected without --distributed-world-size "
                    f"{count}, which shares the utterances too"
                )
            count, index = args.num_shards, args.shard_id
        shard = launched_shard(count, index, getattr(args, "device_id", 0))
        if shard.count > 1:
            logger.info("shard %d of %d (%s)", shard.index, shard.count, shard.launcher)
            if shard.launcher != "fairseq flags" and getattr(args, "results_path", None):
                raise InputError(
                    f"--results-path {args.results_path}: every one of {shard.count} processes "
                    "would write the same file there; leave it out, or start the processes with "
                    "--num-shards, --shard-id and one --results-path each"
                )
            if torch.cuda.is_available() and not args.cpu:
                torch.cuda.set_device(shard.local_index % torch.cuda.device_count())
        return shard

    def build_model(self, args: Namespace, from_checkpoint: bool = False) -> BaseFairseqModel:
        """Build a model to train, or the one that a checkpoint describes.

        Raises:
            InputError: A checkpoint of an architecture that this task has no use for.
        """
        if not from_checkpoint:
            self._model = super().build_model(args, from_checkpoint)
            return self._model
        name = getattr(args, "arch", None) or getattr(args, "_name", None)
        try:
            model = super().build_model(args, from_checkpoint)
        except InputError:
            raise
        except Exception as error:  # whatever another architecture's code stumbles over
            raise InputError(
                f"checkpoint of architecture {name}: cannot be built for speech to text "
                f"({type(error).__name__}: {error}), expected conformer_joint_ctc or another "
                "speech-to-text encoder-decoder"
            ) from None
        if not isinstance(model, FairseqEncoderDecoderModel):
            raise InputError(
                f"checkpoint of architecture {name}: not an encoder-decoder, expected "
                "conformer_joint_ctc or another speech-to-text encoder-decoder"
            )
        return model

    def build_criterion(self, args: Namespace) -> FairseqCriterion:
        """Build the criterion, and check all that training starts from.

        Raises:
            InputError: The criterion does not belong to the model or to the data config, or
                training cannot start from the checkpoint.
        """
        if self.data_cfg.prepend_tgt_lang_tag:
            check_ignored_prefix(args)
        criterion = super().build_criterion(args)
        if self._model is not None:
            check_training_flags(self.args, self._model)
            fit_model_to_criterion(self._model, criterion, getattr(self.args, "arch", None))
            # Here, as fairseq builds the criterion last before it reads the checkpoint.
            check_starting_checkpoint(self.args, self._model, args)
        return criterion

    def load_dataset(self, split: str, epoch: int = 1, **_: Any) -> None:
        """Load the manifests of ``split``, a comma-separated list of names.

        Raises:
            InputError: A manifest is missing or wrong, or those to train on are not named so.
        """
        names = split.split(",")
        if not self.generating and split == getattr(self.args, "train_subset", None):
            for name in names:
                if not name.startswith("train"):
                    raise InputError(
                        f"--train-subset {name}: expected a name that begins with train"
                    )
        # Only fairseq-train makes a model; fairseq-validate has the flags of the training too.
        is_train = self._model is not None and split == self.args.train_subset
        rows = {name: read_manifest(Path(self.args.data) / f"{name}.tsv") for name in names}
        if not self.generating:
            check_texts(rows)
        # fairseq resamples subsets against each other only in training.
        if is_train and len(names) > 1 and self.data_cfg.sampling_alpha != 1.0:
            parts = [self._dataset(name, rows[name], is_train) for name in names]
            self.datasets[split] = ResampledSplits(
                parts, self.data_cfg.sampling_alpha, self.args.seed, epoch
            )
            return
        merged = [row for name in names for row in rows[name]]
        if self.generating:
            check_unique_ids(names, rows)
            if self.options or self.deletion:
                check_stored_names(rows)
        self.datasets[split] = self._dataset(split, merged, is_train)

    def _dataset(
        self, split: str, rows: list[ManifestRow], is_train: bool
    ) -> SpeechToTextCTCDataset:
        tokenizers = {
            "pre": self.build_tokenizer(self.args),
            "bpe": self.build_bpe(self.args),
            "bpe_src": encoders.build_bpe(Namespace(**self.data_cfg.bpe_tokenizer_src)),
        }
        return SpeechToTextCTCDataset(
            split,
            rows,
            is_train,
            self.data_cfg,
            self.tgt_dict,
            self.transcript_dictionary,
            tokenizers,
            collect_failures=self.generating,
            transcripts_as_targets=self.transcripts_as_targets and not self.generating,
            seed=getattr(self.args, "seed", 1),
            samplers=subword_samplers(self.args, tokenizers) if is_train else None,
        )

    def filter_indices_by_size(
        self,
        indices: np.ndarray,
        dataset: FairseqDataset,
        max_positions: Any = None,
        ignore_invalid_inputs: bool = False,
    ) -> np.ndarray:
        """Leave out utterances that are too long.

        At generation they count as failed, but for ``--skip-invalid-size-inputs-valid-test``.

        Raises:
            InputError: One is too long for validation, or none is left.
        """
        if not isinstance(dataset, OWN_DATASETS):  # of fairseq-interactive
            return super().filter_indices_by_size(
                indices, dataset, max_positions, ignore_invalid_inputs
            )
        if not self.generating:
            return self._lengths.filter(indices, dataset, max_positions, ignore_invalid_inputs)
        longest = min(self.args.max_source_positions, max_positions[0])
        fits = np.array([dataset.n_frames[i] <= longest for i in indices], dtype=bool)
        for i in indices[~fits] if self.shard.index == 0 else []:
            reason = (
                f"{dataset.n_frames[i]} frames, expected at most {longest} (the least of "
                "--max-source-positions and --max-tokens)"
            )
            if ignore_invalid_inputs:
                logger.warning("left out: utterance %r: %s", dataset.ids[i], reason)
            else:
                self.account.failures[dataset.ids[i]] = reason
        return indices[fits]

    def get_batch_iterator(self, dataset: FairseqDataset, *args: Any, **kwargs: Any) -> Any:
        """Return fairseq's iterator; at generation over this process's share."""
        # fairseq's batching would fail at an utterance that no batch can hold.
        kwargs["max_positions"] = utils.resolve_max_positions(
            self.max_positions(), kwargs.get("max_positions"), kwargs.get("max_tokens")
        )
        if not self.generating:
            return super().get_batch_iterator(dataset, *args, **kwargs)
        kwargs |= {"num_shards": 1, "shard_id": 0}
        self._batch_limits = kwargs.get("max_tokens"), kwargs.get("max_sentences")
        iterator = super().get_batch_iterator(dataset, *args, **kwargs)
        return own_iterator(iterator, dataset, self.shard, self.account)

    def reduce_metrics(
        self, logging_outputs: list[dict[str, Any]], criterion: FairseqCriterion
    ) -> None:
        """Log metrics; after the first update of a training check what a best checkpoint is.

        Raises:
            InputError: ``--best-checkpoint-metric`` is not logged.
        """
        with metrics.aggregate() as logged:
            self.log_metrics(logging_outputs, criterion)
        if self._model is not None and not self._metrics_checked:
            check_best_metric(self.args, self.validation_metrics(logged.get_smoothed_values()))
            self._metrics_checked = True

    def log_metrics(
        self, logging_outputs: list[dict[str, Any]], criterion: FairseqCriterion
    ) -> None:
        """Log what the criterion logs."""
        super().reduce_metrics(logging_outputs, criterion)

    def validation_metrics(self, logged: Iterable[str]) -> set[str]:
        """Return the names of what validation logs, given those of an update."""
        # The criterions count what is too short for CTC in training alone.
        return {name for name in logged if "_too_short" not in name}

    def build_generator(
        self,
        models: list[Any],
        args: Namespace,
        seq_gen_cls: type | None = None,
        extra_gen_cls_kwargs: dict[str, Any] | None = None,
        prefix_allowed_tokens_fn: Any = None,
    ) -> Any:
        """Build the beam search, and open the store if there is one.

        fairseq's speech-to-text task would ignore ``seq_gen_cls``.

        Raises:
            InputError: ``--prefix-size`` does not fit the data config, several models are to be
                explained, or the store has other parameters.
        """
        has_tag = bool(self.data_cfg.prepend_tgt_lang_tag)
        if has_tag and args.prefix_size != 1:
            raise InputError(
                f"--prefix-size {args.prefix_size}: expected 1, as the data config prepends "
                "language tags"
            )
        if not has_tag and args.prefix_size != 0 and (self.options or self.deletion):
            raise InputError(
                f"--prefix-size {args.prefix_size} with --attribution-dir: expected 0, as the data "
                "config prepends no language tags, and words of the reference would be forced"
            )
        extra = dict(extra_gen_cls_kwargs or {})
        extra["symbols_to_strip_from_output"] = self._language_tags()
        if self.options is not None or self.deletion is not None:
            if len(models) != 1:
                raise InputError(
                    f"--path names {len(models)} models, expected 1 with --attribution-dir"
                )
            self._text_encoders = (self.build_bpe(self.args), self.build_tokenizer(self.args))
        if self.options is not None:
            check_explainable(models[0], self.options)
            seq_gen_cls = EncoderKeepingGenerator
        if self.deletion is not None:
            seq_gen_cls = RemovalGenerator
        generator = super(SpeechToTextTask, self).build_generator(
            models, args, seq_gen_cls, extra, prefix_allowed_tokens_fn
        )
        block_repeated_ngrams(generator)
        # Last: what fairseq refuses leaves no store of its parameters behind.
        if self.options is not None:
            parameters = self._decoding_parameters() | self.options.parameters()
            store = AttributionStore.create(self.options.attribution_dir, parameters, provenance())
            self.run = AttributionRun(self.options, store, models[0], self.tgt_dict, self.account)
        if self.deletion is not None:
            maps, curves = self.deletion.stores(self._decoding_parameters(), provenance())
            self.deletion_run = DeletionRun(
                self.deletion, maps, curves, self.account, self._text, *self._batch_limits
            )
        return generator

    def _decoding_parameters(self) -> dict[str, Any]:
        """Return what hypotheses depend on, for the ``meta.json`` of a store."""
        (path,) = utils.split_paths(self.args.path)
        return {
            "checkpoint SHA-256": sha256(Path(path)),
            "feature transforms": self.data_cfg.get_feature_transforms("", False)[
                "feature_transforms"
            ],
            **decoding_parameters(self.args),
        }

    def inference_step(
        self,
        generator: Any,
        models: list[Any],
        sample: dict[str, Any],
        prefix_tokens: torch.Tensor | None = None,
        constraints: torch.Tensor | None = None,
    ) -> list[list[dict[str, Any]]]:
        """Decode a batch; explain and store what the store lacks, or do deletion or insertion.

        Of a batch that processes share, each returns and explains its own utterances. Hypotheses of
        a share that is stored whole come from the store, so a resumed run prints and scores every
        utterance and repeats no work. Of a batch that cannot be decoded nothing is printed; its
        utterances count as failed and the next batch follows.
        """
        if not self.generating:
            return super().inference_step(generator, models, sample, prefix_tokens, constraints)
        dataset = next(iter(self.datasets.values()))
        if self.deletion_run is not None:
            decode = partial(super().inference_step, generator, models)
            return self.deletion_run.process(dataset, sample, generator, prefix_tokens, decode)
        in_batch = [dataset.ids[i] for i in sample["id"].tolist()]
        rows = [row for row, name in enumerate(in_batch) if self.account.is_own(name)]
        ids = [in_batch[row] for row in rows]
        run = self.run
        stored = [] if run is None else [row for row in rows if in_batch[row] in run.store]
        if run is not None and stored == rows:
            found = run.stored(dataset, sample, rows)
            keep_utterances(sample, [*found])
            return [[hypothesis] for hypothesis in found.values()]
        try:
            hypotheses = super().inference_step(
                generator, models, sample, prefix_tokens, constraints
            )
            if run is None:
                self.account.decoded.extend(ids)
            else:
                best = [beams[0] for beams in hypotheses]
                texts = [self._text(hypothesis) for hypothesis in best]
                n_prefix = 0 if prefix_tokens is None else prefix_tokens.shape[1]
                run.process(dataset, sample, generator.encoder_out, best, texts, n_prefix)
        except Exception as error:  # whatever it is, the other batches go on
            left = set(self.account.left)
            if run is not None:
                run.stored(dataset, sample, [row for row in stored if in_batch[row] in left])
            there = {in_batch[row] for row in stored}
            failed = [i for i in ids if i in left and i not in there]
            self.account.fail(failed, error, out_of_memory(error, sample))
            keep_utterances(sample, [])
            return []
        keep_utterances(sample, rows)
        return [hypotheses[row] for row in rows]

    def _text(self, hypothesis: dict[str, Any]) -> str:
        """Return a hypothesis detokenised, as fairseq prints it (``D-``)."""
        text = self.tgt_dict.string(
            hypothesis["tokens"].int().cpu(),
            extra_symbols_to_ignore={*self._language_tags(), self.tgt_dict.eos()},
        )
        for encoder in self._text_encoders:
            text = text if encoder is None else encoder.decode(text)
        return text

    def _language_tags(self) -> set[int]:
        """Return the indices of the language tags in the target dictionary."""
        is_tag = SpeechToTextCTCDataset.is_lang_tag
        return {index for symbol, index in self.tgt_dict.indices.items() if is_tag(symbol)}
