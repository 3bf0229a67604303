"""Beam search that keeps the encoder output of its batch."""

from __future__ import annotations

from typing import Any

from fairseq.sequence_generator import EnsembleModel, SequenceGenerator
from torch import Tensor


class KeepingEnsemble(EnsembleModel):
    """fairseq's ensemble, which also keeps the last encoder outputs."""

    kept: list[dict[str, Any]] | None = None

    def forward_encoder(self, net_input: dict[str, Tensor]) -> list[dict[str, Any]]:
        """Encode, and keep the result before beam search repeats it for its beams."""
        self.kept = super().forward_encoder(net_input)
        return self.kept


class EncoderKeepingGenerator(SequenceGenerator):
    """fairseq's beam search; explanations reuse the encoder output it decoded from."""

    def __init__(self, models: list[Any], *args: Any, **kwargs: Any) -> None:
        """Do as fairseq's generator."""
        super().__init__(KeepingEnsemble(models), *args, **kwargs)

    @property
    def encoder_out(self) -> dict[str, Any]:
        """Encoder output of the last batch, as the (only) model's encoder returned it."""
        return self.model.kept[0]
