"""Models made fast for inference on many copies of one utterance."""

from __future__ import annotations

import copy
from typing import Any

import torch
from fairseq.models import FairseqDecoder, FairseqEncoderDecoderModel
from fairseq.modules import MultiheadAttention
from torch import Tensor, nn
from torch.nn import functional

from fbk_xattn.models.conformer_encoder import ConformerEncoder

# Elements by which the sizes of half-precision products divide where tensor cores are fast.
TENSOR_CORE_MULTIPLE = 8


def inference_copy(
    model: FairseqEncoderDecoderModel, dtype: torch.dtype
) -> FairseqEncoderDecoderModel:
    """Return encoder and decoder of ``model`` in ``dtype``, for utterances of one length.

    They compute what the model does, within rounding, in fewer passes over memory: a Conformer
    encoder on a CUDA device becomes a :class:`fbk_xattn.models.cuda.encoder.FusedEncoder`, a plain
    Transformer decoder there a :class:`fbk_xattn.models.cuda.decoder.FusedDecoder`. Later changes
    of the weights of ``model`` do not reach the copy.

    Args:
        model: In evaluation mode, on its device.
        dtype: Of weights and activations.
    """
    encoder = model.encoder
    decoder = copy.deepcopy(model.decoder).to(dtype)
    on_gpu = next(decoder.parameters()).is_cuda
    if on_gpu and isinstance(encoder, ConformerEncoder):
        from fbk_xattn.models.cuda.encoder import FusedEncoder

        encoder = FusedEncoder(encoder, dtype)
    else:
        encoder = copy.deepcopy(encoder).to(dtype)
    if on_gpu:
        from fbk_xattn.models.cuda.decoder import FusedDecoder, can_fuse

        if can_fuse(decoder):
            return FairseqEncoderDecoderModel(encoder, FusedDecoder(decoder)).eval()
    _speed_up(decoder)
    return FairseqEncoderDecoderModel(encoder, decoder).eval()


def _speed_up(decoder: FairseqDecoder) -> None:
    """Replace modules of a fairseq Transformer decoder by faster ones, where they are as usual."""
    for layer in getattr(decoder, "layers", []):
        if type(getattr(layer, "encoder_attn", None)) is MultiheadAttention:
            layer.encoder_attn = CrossAttention(layer.encoder_attn)
    if type(getattr(decoder, "output_projection", None)) is nn.Linear:
        decoder.output_projection = AlignedLinear(decoder.output_projection)


class CrossAttention(nn.Module):
    """fairseq's cross-attention without padding, weights and dropout.

    Keys and values come from one product, and are read where it left them.
    """

    def __init__(self, attention: Any) -> None:
        """Take over the projections of fairseq's ``attention``."""
        super().__init__()
        self.num_heads, self.scaling = attention.num_heads, attention.scaling
        self.q_proj, self.out_proj = attention.q_proj, attention.out_proj
        self.k_proj, self.v_proj = attention.k_proj, attention.v_proj
        both = (self.k_proj, self.v_proj)
        weights, biases = ([getattr(p, name) for p in both] for name in ("weight", "bias"))
        self._weight = torch.cat(weights).detach()
        self._bias = None if biases[0] is None else torch.cat(biases).detach()

    def forward(
        self, query: Tensor, key: Tensor, key_padding_mask: Tensor | None = None, **_: Any
    ) -> tuple[Tensor, None]:
        """Attend from ``(S, n, d)`` to ``(T', n, d)``.

        Raises:
            ValueError: There is padding.
        """
        if key_padding_mask is not None:
            raise ValueError("padding, expected utterances of one length")
        projected = functional.linear(key.transpose(0, 1), self._weight, self._bias)
        # (n, T', 2, H, d / H) to keys and values (n, H, T', d / H).
        keys, values = projected.unflatten(2, (2, self.num_heads, -1)).transpose(1, 3).unbind(2)
        queries = self.q_proj(query).unflatten(2, (self.num_heads, -1)).permute(1, 2, 0, 3)
        attended = functional.scaled_dot_product_attention(
            queries, keys, values, scale=self.scaling
        )
        return self.out_proj(attended.permute(2, 0, 1, 3).flatten(2)), None


class AlignedLinear(nn.Module):
    """A linear layer of any output size, with zeros added to its weights for tensor cores."""

    def __init__(self, layer: nn.Linear) -> None:
        """Take over the weights of ``layer``."""
        super().__init__()
        self._size = layer.out_features
        missing = -self._size % TENSOR_CORE_MULTIPLE
        self._weight = functional.pad(layer.weight.detach(), (0, 0, 0, missing))
        bias = layer.bias
        self._bias = None if bias is None else functional.pad(bias.detach(), (0, missing))

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(..., inputs)`` to ``(..., outputs)``, not contiguous."""
        return functional.linear(x, self._weight, self._bias)[..., : self._size]
