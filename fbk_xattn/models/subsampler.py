"""The convolutions that turn four feature frames into one encoder step."""

from __future__ import annotations

from fairseq.models.speech_to_text.modules.convolution import Conv1dSubsampler
from torch import Tensor, nn

from fbk_xattn.models.masking import length_mask, zero_padding


class PaddingSafeSubsampler(Conv1dSubsampler):
    """fairseq's strided convolutions with GLU, with padding kept at zero between the layers.

    A convolution turns zero padding into its bias, which the next one would mix into the last steps
    of a shorter utterance. State-dict names are those of ``Conv1dSubsampler``.
    """

    @property
    def factor(self) -> int:
        """Feature frames that one encoder step covers."""
        return int(2**self.n_layers)

    def forward(self, features: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Subsample.

        Args:
            features: ``(B, T, F)``, padded at the end with any values.
            lengths: ``(B,)`` number of frames of each utterance, or ``None`` when all are ``T``.

        Returns:
            ``(B, T', d)`` with ``T' = ceil(T / factor)`` for the usual two layers, and the lengths
            in encoder steps (``None`` for ``None``). What lies beyond a length is arbitrary.
        """
        x = features.transpose(1, 2)
        for convolution in self.conv_layers:
            mask = None if lengths is None else length_mask(lengths, x.shape[2])
            x = nn.functional.glu(convolution(zero_padding(x, mask, time_dim=2)), dim=1)
            # Kernel 2p + 1, stride 2, padding p: one output for each even input position.
            lengths = None if lengths is None else (lengths + 1) // 2
        # All layers after keep the layout of memory that they are given.
        return x.transpose(1, 2).contiguous(), lengths
