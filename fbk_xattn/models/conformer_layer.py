"""One Conformer block (Gulati et al. 2020), unaffected by padding."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from fbk_xattn.errors import InputError
from fbk_xattn.models.batch_norm import SynchronisedBatchNorm
from fbk_xattn.models.masking import zero_padding
from fbk_xattn.models.projection import LayerNorm, linear, project
from fbk_xattn.models.relative_attention import RelativeMultiHeadAttention, RelativePositions


@dataclass(frozen=True)
class ConformerLayerConfig:
    """Sizes and dropout probabilities of a block.

    Attributes:
        dim: Model dimension.
        heads: Attention heads.
        feed_forward_expansion: Inner width of the feed-forward modules, in multiples of ``dim``.
        conv_expansion: Width before the gated linear unit, in multiples of ``dim`` (only 2 keeps
            the widths consistent).
        kernel_size: Odd kernel size of the depthwise convolution.
        feed_forward_dropout: After the activation and after the module.
        attention_dropout: On attention weights and after the module.
        conv_dropout: After the convolution module.
        half_step_residual: Whether feed-forward modules count one half in the residual sum.
        synchronise_batch_norm: Whether batch statistics are shared between processes in training.
    """

    dim: int
    heads: int
    feed_forward_expansion: int = 4
    conv_expansion: int = 2
    kernel_size: int = 31
    feed_forward_dropout: float = 0.1
    attention_dropout: float = 0.1
    conv_dropout: float = 0.1
    half_step_residual: bool = True
    synchronise_batch_norm: bool = True

    def __post_init__(self) -> None:
        """Check the sizes.

        Raises:
            InputError: A size is out of its range.
        """
        if self.kernel_size % 2 == 0:
            raise InputError(
                f"--conformer-conv-kernel-size {self.kernel_size}, expected an odd number"
            )
        if self.conv_expansion != 2:
            raise InputError(
                f"--conv-expansion-factor {self.conv_expansion}, expected 2 (for the GLU)"
            )


class FeedForwardModule(nn.Module):
    """Layer norm, linear, swish, linear."""

    def __init__(self, config: ConformerLayerConfig) -> None:
        """Create the module."""
        super().__init__()
        inner = config.dim * config.feed_forward_expansion
        self.layernorm = LayerNorm(config.dim)
        self.first_linear = linear(config.dim, inner)
        self.second_linear = linear(inner, config.dim)
        self.dropout = nn.Dropout(config.feed_forward_dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, L, d)`` to ``(B, L, d)``."""
        x = self.dropout(functional.silu(self.first_linear(self.layernorm(x))))
        return self.dropout(self.second_linear(x))


class AttentionModule(nn.Module):
    """Layer norm and relative self-attention."""

    def __init__(self, config: ConformerLayerConfig) -> None:
        """Create the module."""
        super().__init__()
        self.layer_norm = LayerNorm(config.dim)
        self.attention = RelativeMultiHeadAttention(
            config.dim, config.heads, config.attention_dropout
        )
        self.dropout = nn.Dropout(config.attention_dropout)

    def forward(self, x: Tensor, positions: RelativePositions) -> Tensor:
        """Map ``(B, L, d)`` to ``(B, L, d)``."""
        return self.dropout(self.attention(self.layer_norm(x), positions))


class ConvolutionModule(nn.Module):
    """Layer norm, pointwise, GLU, depthwise, batch norm, swish, pointwise."""

    def __init__(self, config: ConformerLayerConfig) -> None:
        """Create the module."""
        super().__init__()
        dim = config.dim
        self.layernorm = LayerNorm(dim)
        self.first_pointwise_conv1d = nn.Conv1d(dim, dim * config.conv_expansion, 1)
        self.depthwise_conv1d = nn.Conv1d(
            dim,
            dim,
            config.kernel_size,
            padding=config.kernel_size // 2,
            groups=dim,
            bias=False,
        )
        batch_norm = SynchronisedBatchNorm if config.synchronise_batch_norm else nn.BatchNorm1d
        self.batchnorm = batch_norm(dim)
        self.second_pointwise_conv1d = nn.Conv1d(dim, dim, 1)
        self.dropout = nn.Dropout(config.conv_dropout)

    def forward(self, x: Tensor, positions: RelativePositions) -> Tensor:
        """Map ``(B, L, d)`` to ``(B, L, d)``.

        The published system zeroes padding twice more, after the batch norm and at the end, where
        nothing that belongs to an utterance reads it.
        """
        x = functional.glu(_pointwise(self.first_pointwise_conv1d, self.layernorm(x)), dim=2)
        x = self._depthwise(x, positions)
        x = self.batchnorm(x.flatten(0, 1)).view_as(x)
        return self.dropout(_pointwise(self.second_pointwise_conv1d, functional.silu(x)))

    def _depthwise(self, x: Tensor, positions: RelativePositions) -> Tensor:
        """Convolve ``(B, L, d)`` over time, with zeros on padding before and after."""
        convolution = self.depthwise_conv1d
        if x.is_cuda:
            from fbk_xattn.models.cuda.depthwise import CUDADepthwise

            return CUDADepthwise.apply(x, convolution.weight, positions.lengths_or_all(x))
        x = zero_padding(x, positions.padding).transpose(1, 2)
        return zero_padding(convolution(x).transpose(1, 2), positions.padding)


def _pointwise(convolution: nn.Conv1d, x: Tensor) -> Tensor:
    """Apply a convolution of kernel size 1 to ``(B, L, C)``, without moving time to the end."""
    return project(x, convolution.weight.squeeze(2), convolution.bias)


class ConformerLayer(nn.Module):
    """Half feed-forward, self-attention, convolution, half feed-forward, layer norm."""

    def __init__(self, config: ConformerLayerConfig) -> None:
        """Create the block."""
        super().__init__()
        self.first_feed_forward = FeedForwardModule(config)
        self.attention = AttentionModule(config)
        self.conv_module = ConvolutionModule(config)
        self.second_feed_forward = FeedForwardModule(config)
        self.layernorm = LayerNorm(config.dim)
        self.feed_forward_share = 0.5 if config.half_step_residual else 1.0

    def forward(self, x: Tensor, positions: RelativePositions) -> Tensor:
        """Map ``(B, L, d)`` to ``(B, L, d)``; beyond an utterance's length it is arbitrary."""
        x = torch.add(x, self.first_feed_forward(x), alpha=self.feed_forward_share)
        x = x + self.attention(x, positions)
        x = x + self.conv_module(x, positions)
        x = torch.add(x, self.second_feed_forward(x), alpha=self.feed_forward_share)
        return self.layernorm(x)
