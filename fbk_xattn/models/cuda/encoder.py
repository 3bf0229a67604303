"""The Conformer encoder for many utterances of one length, without gradients."""

from __future__ import annotations

from typing import Any

import torch
from fairseq.models import FairseqEncoder
from torch import Tensor, nn
from torch.nn import functional

from fbk_xattn.models.conformer_encoder import ConformerEncoder
from fbk_xattn.models.conformer_layer import ConformerLayer, FeedForwardModule
from fbk_xattn.models.cuda.attention import attend_relatively
from fbk_xattn.models.cuda.depthwise import depthwise_swish
from fbk_xattn.models.cuda.products import linear_gated, linear_swish
from fbk_xattn.models.cuda.rowwise import gated, normalise


class FusedEncoder(FairseqEncoder):
    """A trained :class:`ConformerEncoder` that computes the same in fewer passes over memory.

    Residual sums are taken by the products themselves, in place; what their biases add up to is an
    offset that the next layer norm takes along. The batch norm is part of the depthwise kernel, and
    attention finds the shifted positions as it goes. It reads the weights once, when it is made.
    """

    def __init__(self, encoder: ConformerEncoder, dtype: torch.dtype) -> None:
        """Take over the weights of ``encoder``, which is on a CUDA device, in ``dtype``."""
        super().__init__(None)
        self.frames_per_step = encoder.frames_per_step
        self._positions = encoder.positions
        self._convolutions = []
        for number, convolution in enumerate(encoder.subsample.conv_layers):
            weight, bias = convolution.weight.detach(), convolution.bias.detach()
            if number == encoder.subsample.n_layers - 1:
                # The scale of the embedding, on the half that the other one gates.
                share = torch.ones_like(bias)
                share[: len(bias) // 2] = encoder.scale
                weight, bias = weight * share.view(-1, 1, 1), bias * share
            weight = weight.to(dtype).unsqueeze(2).to(memory_format=torch.channels_last)
            self._convolutions.append((weight, bias.float(), convolution.padding[0]))
        layers: Any = encoder.conformer_layers
        self._layers = [FusedLayer(layer, dtype) for layer in layers]

    @torch.no_grad()
    def forward(self, src_tokens: Tensor, src_lengths: Tensor | None = None) -> dict[str, Any]:  # noqa: ARG002
        """Encode.

        Args:
            src_tokens: ``(B, T, F)`` features of utterances that all have ``T`` frames.
            src_lengths: Not looked at.

        Returns:
            As :meth:`ConformerEncoder.forward`, without states of other layers than the last.
        """
        x = src_tokens.to(self._convolutions[0][0].dtype)
        for weight, bias, padding in self._convolutions:
            # Channels last: a convolution over an image of height 1.
            image = x.transpose(1, 2).unsqueeze(2)
            # cuDNN would add a bias in a pass of its own.
            image = functional.conv2d(image, weight, stride=(1, 2), padding=(0, padding))
            x = gated(image.squeeze(2).transpose(1, 2).contiguous(), bias)
        n_utterances, size, dim = x.shape
        table = self._positions[:size].to(x.dtype)
        lengths = torch.full((n_utterances,), size, device=x.device)
        x = x.view(-1, dim)
        normed = self._layers[0].enter(x)
        following = [*self._layers[1:], None]
        for layer, after in zip(self._layers, following, strict=True):
            normed = layer(x, normed, table, lengths, after)
        return {
            "encoder_out": [normed.view(n_utterances, size, dim).transpose(0, 1)],
            "encoder_padding_mask": [],
            "encoder_embedding": [],
            "encoder_states": [],
            "ctc_states": [],
            "src_tokens": [],
            "src_lengths": [lengths],
        }


class FusedLayer:
    """A Conformer block; ``R`` is the number of steps of all utterances."""

    def __init__(self, layer: ConformerLayer, dtype: torch.dtype) -> None:
        """Take over the weights of ``layer``, in ``dtype``."""
        share = layer.feed_forward_share
        attention, convolution = layer.attention.attention, layer.conv_module
        self._dtype = dtype
        self._eps = layer.layernorm.eps
        self._heads, self._scale = attention.heads, attention.scale
        # Before each module and at the end of the block.
        self._norms = [
            _norm(norm)
            for norm in (
                layer.first_feed_forward.layernorm,
                layer.attention.layer_norm,
                convolution.layernorm,
                layer.second_feed_forward.layernorm,
                layer.layernorm,
            )
        ]
        self._first = self._feed_forward(layer.first_feed_forward, share)
        self._second = self._feed_forward(layer.second_feed_forward, share)
        projections = (attention.query_proj, attention.key_proj, attention.value_proj)
        content, position = attention.u_bias.flatten(), attention.v_bias.flatten()
        self._project = self._cast(
            torch.cat([projection.weight for projection in projections]),
            torch.cat(
                [
                    attention.query_proj.bias + position,
                    attention.key_proj.bias,
                    attention.value_proj.bias,
                ]
            ),
        )
        self._content_shift = (content - position).detach().float()
        (self._position,) = self._cast(attention.pos_proj.weight)
        (self._attention_out,) = self._cast(attention.out_proj.weight)
        pointwise: Any = convolution.first_pointwise_conv1d
        (self._pointwise,) = self._cast(pointwise.weight.squeeze(2))
        self._gate_bias = pointwise.bias.detach().float()
        gain, shift = _as_scale_and_shift(convolution.batchnorm)
        weight = convolution.depthwise_conv1d.weight.squeeze(1) * gain.unsqueeze(1)
        self._depthwise = (
            weight.t().detach().float().contiguous(),
            shift.detach().float(),
        )
        (self._convolution_out,) = self._cast(convolution.second_pointwise_conv1d.weight.squeeze(2))
        # Offsets before each norm: the biases of the modules so far.
        biases: list[Any] = [
            layer.first_feed_forward.second_linear.bias * share,
            attention.out_proj.bias,
            convolution.second_pointwise_conv1d.bias,
            layer.second_feed_forward.second_linear.bias * share,
        ]
        offsets = torch.stack([torch.zeros_like(biases[0]), *biases]).detach().float().cumsum(0)
        self._offsets = list(offsets.unbind())

    def enter(self, x: Tensor) -> Tensor:
        """Return the layer norm before the block, of ``(R, d)``."""
        return normalise(x, self._offsets[0], self._norms[0], self._eps)

    def __call__(
        self, x: Tensor, normed: Tensor, table: Tensor, lengths: Tensor, after: FusedLayer | None
    ) -> Tensor:
        """Run the block.

        Args:
            x: ``(R, d)``, the sum that modules add to. Overwritten with the block's output, but for
                the last block.
            normed: ``(R, d)``, the layer norm before the block.
            table: ``(L, d)`` positions.
            lengths: ``(B,)``, each ``L``.
            after: The next block.

        Returns:
            ``(R, d)``: the layer norm before the next block; of the last block, its output.
        """
        norms, offsets, eps = self._norms, self._offsets, self._eps
        self._add_feed_forward(x, normed, self._first)
        normed = normalise(x, offsets[1], norms[1], eps)
        shape = (len(lengths), len(x) // len(lengths), -1)
        self._add_attention(x, normed.view(shape), table)
        normed = normalise(x, offsets[2], norms[2], eps)
        gates = linear_gated(normed, self._pointwise, self._gate_bias)
        convolved = depthwise_swish(gates.view(shape), *self._depthwise, lengths)
        x.addmm_(convolved.flatten(0, 1), self._convolution_out.t())
        normed = normalise(x, offsets[3], norms[3], eps)
        self._add_feed_forward(x, normed, self._second)
        if after is None:
            return normalise(x, offsets[4], norms[4], eps)
        return normalise(x, offsets[4], after._norms[0], eps, final=norms[4])

    def _feed_forward(self, module: FeedForwardModule, share: float) -> tuple[Tensor, ...]:
        return self._cast(
            module.first_linear.weight,
            module.first_linear.bias,
            module.second_linear.weight * share,
        )

    def _add_feed_forward(self, x: Tensor, normed: Tensor, weights: tuple[Tensor, ...]) -> None:
        first, bias, second = weights
        x.addmm_(linear_swish(normed, first, bias), second.t())

    def _add_attention(self, x: Tensor, normed: Tensor, table: Tensor) -> None:
        projected = functional.linear(normed, *self._project)
        attended = attend_relatively(
            projected,
            functional.linear(table, self._position),
            self._content_shift,
            self._heads,
            self._scale,
        )
        x.addmm_(attended.flatten(0, 1), self._attention_out.t())

    def _cast(self, *weights: Tensor) -> tuple[Tensor, ...]:
        return tuple(weight.detach().to(self._dtype).contiguous() for weight in weights)


def _as_scale_and_shift(norm: Any) -> tuple[Tensor, Tensor]:
    """Return what a batch norm multiplies by and adds, in evaluation mode."""
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    return scale, norm.bias - norm.running_mean * scale


def _norm(norm: nn.LayerNorm) -> Tensor:
    """Return ``(2, d)`` in float32: weight and bias."""
    return torch.stack([norm.weight, norm.bias]).detach().float()
