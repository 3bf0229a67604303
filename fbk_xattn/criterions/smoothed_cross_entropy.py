"""Cross-entropy with label smoothing as the published system computes it."""

from __future__ import annotations

from typing import Any

from fairseq.criterions.label_smoothed_cross_entropy import LabelSmoothedCrossEntropyCriterion
from fairseq.models import BaseFairseqModel
from torch import Tensor

# Logits (B, S, V) and what else the decoder returns, among it the encoder output.
NetOutput = tuple[Tensor, dict[str, Any]]


class SmoothedCrossEntropy(LabelSmoothedCrossEntropyCriterion):
    """fairseq's criterion with epsilon spread over all symbols.

    Today's fairseq leaves the correct symbol out, which changes the loss a little. Losses are in
    nats, summed over the batch.
    """

    def forward(
        self, model: BaseFairseqModel, sample: dict[str, Any], reduce: bool = True
    ) -> tuple[Tensor, int, dict[str, Any]]:
        """Return loss, gradient denominator (target tokens) and what is logged."""
        return self.loss_of(model, model(**sample["net_input"]), sample, reduce)

    def loss_of(
        self,
        model: BaseFairseqModel,
        net_output: NetOutput,
        sample: dict[str, Any],
        reduce: bool = True,
    ) -> tuple[Tensor, int, dict[str, Any]]:
        """Do as :meth:`forward` with the model's output ``net_output``."""
        loss, nll = self.compute_loss(model, net_output, sample, reduce=reduce)
        n_sentences = sample["target"].size(0)
        sample_size = n_sentences if self.sentence_avg else sample["ntokens"]
        logged = {
            "loss": loss.data,
            "nll_loss": nll.data,
            "ntokens": sample["ntokens"],
            "nsentences": n_sentences,
            "sample_size": sample_size,
        }
        if self.report_accuracy:
            n_correct, total = self.compute_accuracy(model, net_output, sample)
            logged |= {"n_correct": n_correct.data, "total": total.data}
        return loss, sample_size, logged

    def compute_loss(
        self,
        model: BaseFairseqModel,
        net_output: NetOutput,
        sample: dict[str, Any],
        reduce: bool = True,
    ) -> tuple[Tensor, Tensor]:
        """Return label-smoothed and plain cross-entropy."""
        log_probs, target = self.get_lprobs_and_target(model, net_output, sample)
        kept = target.ne(self.padding_idx)
        nll = -log_probs.gather(1, target.unsqueeze(1)).squeeze(1) * kept
        uniform = -log_probs.mean(dim=1) * kept
        loss = (1.0 - self.eps) * nll + self.eps * uniform
        return (loss.sum(), nll.sum()) if reduce else (loss, nll)
