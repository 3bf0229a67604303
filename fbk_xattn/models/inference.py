"""Models made fast for inference on many copies of one utterance."""

from __future__ import annotations

import copy
from typing import Any

import torch
from fairseq.models import FairseqDecoder, FairseqEncoderDecoderModel
from fairseq.models.transformer import TransformerDecoderBase
from fairseq.modules import MultiheadAttention
from torch import Tensor, nn
from torch.nn import functional

from fbk_xattn.models.conformer_encoder import ConformerEncoder

# Elements by which the sizes of half-precision products divide where tensor cores are fast.
TENSOR_CORE_MULTIPLE = 8
# What a plain decoder does without.
EXTRAS = ("quant_noise", "project_in_dim", "layernorm_embedding", "project_out_dim")
LAYER_EXTRAS = ("attn_ln", "c_attn", "ffn_layernorm", "w_resid")


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
    encoder, decoder = model.encoder, model.decoder
    on_gpu = next(decoder.parameters()).is_cuda
    if on_gpu and isinstance(encoder, ConformerEncoder):
        from fbk_xattn.models.cuda.encoder import FusedEncoder

        encoder = FusedEncoder(encoder, dtype)
    else:
        encoder = copy.deepcopy(encoder).to(dtype)
    if on_gpu:
        from fbk_xattn.models.cuda.decoder import FusedDecoder

        if is_plain(decoder):
            return FairseqEncoderDecoderModel(encoder, FusedDecoder(decoder, dtype)).eval()
    return FairseqEncoderDecoderModel(encoder, _sped_up(decoder, dtype)).eval()


def is_plain(decoder: FairseqDecoder) -> bool:
    """Tell whether a decoder is plain: layer norms first, one embedding, usual attention."""
    return (
        isinstance(decoder, TransformerDecoderBase)
        and decoder.layer_norm is not None
        and decoder.embed_positions is not None
        and type(decoder.output_projection) is nn.Linear
        and not decoder.cross_self_attention
        and all(getattr(decoder, name, None) is None for name in EXTRAS)
        and all(_is_plain_layer(layer) for layer in decoder.layers)
    )


def _is_plain_layer(layer: Any) -> bool:
    attentions = (layer.self_attn, layer.encoder_attn)
    return (
        layer.normalize_before
        and all(type(attention) is MultiheadAttention for attention in attentions)
        and all(attention.bias_k is None for attention in attentions)
        and not any(attention.add_zero_attn for attention in attentions)
        and all(attention.q_proj.bias is not None for attention in attentions)
        and type(layer.fc1) is nn.Linear
        and all(getattr(layer, name, None) is None for name in LAYER_EXTRAS)
    )


def logits_dtype(dtype: torch.dtype, on_gpu: bool) -> torch.dtype:
    """Return the precision in which a decoder of ``dtype`` projects onto its vocabulary.

    The eight bits of bf16 leave logits of 8 to 16 an error of up to 0.03, more than an occlusion
    changes those of a token that the model predicts without listening: the map of such a token
    would show the rounding. The layer norm before the projection bounds what fp16 has to hold.
    """
    if dtype != torch.bfloat16:
        return dtype
    return torch.float16 if on_gpu else torch.float32


def residual_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the precision in which a plain decoder of ``dtype`` adds up what its layers give.

    Token embeddings are scaled by ``sqrt(d)``; beside them bf16 has no place for what an occlusion
    changes in a token that the model predicts without listening.
    """
    return torch.float32 if dtype == torch.bfloat16 else dtype


def _sped_up(decoder: FairseqDecoder, dtype: torch.dtype) -> FairseqDecoder:
    """Copy a decoder, with faster modules where it is a usual Transformer of fairseq."""
    result: Any = copy.deepcopy(decoder).to(dtype)
    for layer in getattr(result, "layers", []):
        if type(getattr(layer, "encoder_attn", None)) is MultiheadAttention:
            layer.encoder_attn = CrossAttention(layer.encoder_attn)
    projection = getattr(decoder, "output_projection", None)
    if type(projection) is nn.Linear:
        wanted = logits_dtype(dtype, projection.weight.is_cuda)
        result.output_projection = AlignedLinear(projection, wanted)
        norm = getattr(decoder, "layer_norm", None)
        between = getattr(decoder, "project_out_dim", None)
        if wanted != dtype and norm is not None and between is None:
            result.layer_norm = _PreciseNorm(norm, wanted)
    if residual_dtype(dtype) != dtype and is_plain(decoder):
        _add_up_precisely(result, decoder, dtype)
    return result


def _add_up_precisely(result: Any, decoder: Any, dtype: torch.dtype) -> None:
    """Give a copy of a plain decoder the embeddings of the original, and norms down to ``dtype``.

    Sums of the two precisions are taken in the higher one.
    """
    wanted = residual_dtype(dtype)
    result.embed_tokens = copy.deepcopy(decoder.embed_tokens).to(wanted)
    result.embed_positions = copy.deepcopy(decoder.embed_positions).to(wanted)
    names = ("self_attn_layer_norm", "encoder_attn_layer_norm", "final_layer_norm")
    for layer, original in zip(result.layers, decoder.layers, strict=True):
        for name in names:
            setattr(layer, name, _PreciseNorm(getattr(original, name), dtype))


class _PreciseNorm(nn.Module):
    """A layer norm in float32 with a result in another precision."""

    def __init__(self, norm: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self._norm, self._dtype = copy.deepcopy(norm).float(), dtype

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``(..., d)``."""
        return self._norm(x.float()).to(self._dtype)


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

    def __init__(self, layer: nn.Linear, dtype: torch.dtype) -> None:
        """Take over the weights of ``layer`` in ``dtype``."""
        super().__init__()
        self._size = layer.out_features
        missing = -self._size % TENSOR_CORE_MULTIPLE
        self._weight = functional.pad(layer.weight.detach().to(dtype), (0, 0, 0, missing))
        bias = layer.bias
        self._bias = None if bias is None else functional.pad(bias.detach().to(dtype), (0, missing))

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(..., inputs)`` to ``(..., outputs)``, not contiguous, in its own precision."""
        inputs = x.to(self._weight.dtype)
        return functional.linear(inputs, self._weight, self._bias)[..., : self._size]
