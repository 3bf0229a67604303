"""The Conformer encoder with its CTC head."""

from __future__ import annotations

import math
from argparse import Namespace
from typing import Any

from fairseq.models import FairseqEncoder
from torch import Tensor, nn

from fbk_xattn.errors import InputError
from fbk_xattn.models.conformer_layer import ConformerLayer, ConformerLayerConfig
from fbk_xattn.models.masking import length_mask
from fbk_xattn.models.projection import VocabularyProjection
from fbk_xattn.models.relative_attention import (
    MAX_STEPS,
    RelativePositions,
    sinusoids,
)
from fbk_xattn.models.subsampler import PaddingSafeSubsampler


class ConformerEncoder(FairseqEncoder):
    """Subsampling convolutions and Conformer blocks; CTC over transcripts on one block's output.

    ``T`` is the number of feature frames, ``T' = ceil(T / 4)`` of encoder steps, ``d`` the model
    dimension. An utterance gives the same output alone and in any padded batch (evaluation mode).
    """

    padding_invariant = True  # explanations ask for it: not so of fairseq's own encoders

    def __init__(self, args: Namespace, n_ctc_symbols: int | None) -> None:
        """Create the encoder.

        Args:
            args: Options of the architecture (:mod:`fbk_xattn.models.conformer` lists them).
            n_ctc_symbols: Size of the transcript vocabulary with the blank, or ``None`` for no CTC
                head.

        Raises:
            InputError: ``args.ctc_encoder_layer`` is not one of the blocks, or a size is out of its
                range.
        """
        super().__init__(None)
        dim = args.encoder_embed_dim
        kernel_sizes = [int(size) for size in args.conv_kernel_sizes.split(",")]
        if any(size % 2 == 0 for size in kernel_sizes):
            raise InputError(f"--conv-kernel-sizes {args.conv_kernel_sizes}, expected odd numbers")
        self.subsample = PaddingSafeSubsampler(
            args.input_feat_per_channel * args.input_channels,
            args.conv_channels,
            dim,
            kernel_sizes,
        )
        self.scale = 1.0 if args.no_scale_embedding else math.sqrt(dim)
        self.dropout = nn.Dropout(args.dropout)
        # Not in the state dict: a table of constants, once for all blocks.
        self.register_buffer("positions", sinusoids(MAX_STEPS, dim), persistent=False)
        config = ConformerLayerConfig(
            dim=dim,
            heads=args.encoder_attention_heads,
            feed_forward_expansion=args.feed_forward_expansion_factor,
            conv_expansion=args.conv_expansion_factor,
            kernel_size=args.conformer_conv_kernel_size,
            feed_forward_dropout=args.conformer_feedforward_dropout,
            attention_dropout=args.conformer_attention_dropout,
            conv_dropout=args.conformer_conv_dropout,
            half_step_residual=args.conformer_half_step_residual,
            synchronise_batch_norm=not args.no_syncbatchnorm,
        )
        self.conformer_layers = nn.ModuleList(
            ConformerLayer(config) for _ in range(args.encoder_layers)
        )
        self.ctc_encoder_layer = args.ctc_encoder_layer
        if n_ctc_symbols is not None:
            if not 1 <= self.ctc_encoder_layer <= args.encoder_layers:
                raise InputError(
                    f"--ctc-encoder-layer {self.ctc_encoder_layer}, "
                    f"expected 1 to {args.encoder_layers}"
                )
            self.ctc_fc = VocabularyProjection(dim, n_ctc_symbols)

    @property
    def frames_per_step(self) -> int:
        """Feature frames that one encoder step covers."""
        return self.subsample.factor

    def forward(
        self,
        src_tokens: Tensor,
        src_lengths: Tensor | None,
        return_all_hiddens: bool = False,
    ) -> dict[str, list[Tensor]]:
        """Encode.

        Args:
            src_tokens: ``(B, T, F)`` features, padded at the end.
            src_lengths: ``(B,)`` frames of each utterance; ``None`` when all have ``T``, which
                saves the masks.
            return_all_hiddens: Whether to return the output of every block.

        Returns:
            fairseq's encoder output, each entry a list of at most one tensor: ``encoder_out``
            ``(T', B, d)``, ``encoder_padding_mask`` ``(B, T')`` true on padding (no entry when
            there is none), ``ctc_states`` ``(T', B, d)`` the output of block ``ctc_encoder_layer``,
            ``src_lengths`` ``(B,)`` in encoder steps, and ``encoder_states``, one ``(T', B, d)`` a
            block if asked for.
        """
        # Training takes the way with padding unseen: a look would wait for the device.
        padded = src_lengths is not None and (
            self.training or bool((src_lengths != src_tokens.shape[1]).any())
        )
        # fairseq leaves features in float32 when it turns the model to half precision.
        features = src_tokens.to(self.subsample.conv_layers[0].weight.dtype)
        x, lengths = self.subsample(features, src_lengths if padded else None)
        x = self.dropout(self.scale * x)
        size = x.shape[1]
        if size > MAX_STEPS:
            raise ValueError(
                f"{src_tokens.shape[1]} frames, expected at most {self.max_positions()}"
            )
        padding = None if lengths is None else length_mask(lengths, size)
        positions = RelativePositions.of(self.positions[:size].to(x.dtype), lengths, padding)
        states = []
        for layer in self.conformer_layers:
            x = layer(x, positions)
            states.append(x)
        steps = lengths if lengths is not None else x.new_full((x.shape[0],), size).long()
        ctc_states = states[self.ctc_encoder_layer - 1] if hasattr(self, "ctc_fc") else None
        return {
            "encoder_out": [x.transpose(0, 1)],
            "encoder_padding_mask": [] if padding is None else [padding],
            "encoder_embedding": [],
            "encoder_states": [s.transpose(0, 1) for s in states] if return_all_hiddens else [],
            "ctc_states": [] if ctc_states is None else [ctc_states.transpose(0, 1)],
            "src_tokens": [],
            "src_lengths": [steps],
        }

    def ctc_logits(self, encoder_out: dict[str, list[Tensor]]) -> Tensor:
        """Return the logits ``(T', B, V + 1)`` of CTC over transcripts for an encoder output.

        Computed on demand: inference has no use for them.
        """
        return self.ctc_fc(encoder_out["ctc_states"][0])

    def reorder_encoder_out(
        self, encoder_out: dict[str, list[Tensor]], new_order: Tensor
    ) -> dict[str, list[Tensor]]:
        """Select utterances (with repetition, for beams) from an encoder output.

        Without the states of CTC: beam search selects at every step, and never reads them.
        """
        batch_dim = {"encoder_padding_mask": 0, "src_lengths": 0}
        return {
            key: [tensor.index_select(batch_dim.get(key, 1), new_order) for tensor in tensors]
            for key, tensors in {**encoder_out, "ctc_states": []}.items()
        }

    def max_positions(self) -> int:
        """Return the longest utterance, in feature frames."""
        return MAX_STEPS * self.frames_per_step

    def upgrade_state_dict_named(self, state_dict: dict[str, Any], name: str) -> dict[str, Any]:
        """Drop the position tables that published checkpoints repeat in every block."""
        for key in [
            k for k in state_dict if k.startswith(name) and k.endswith(".positional_encoding.pe")
        ]:
            del state_dict[key]
        return super().upgrade_state_dict_named(state_dict, name)
