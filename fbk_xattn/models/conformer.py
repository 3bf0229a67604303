"""The fairseq models ``conformer`` and ``conformer_joint_ctc`` and their architectures."""

from __future__ import annotations

import importlib.util
import logging
from argparse import ArgumentParser, Namespace
from typing import Any

from fairseq.models import FairseqDecoder, register_model, register_model_architecture
from fairseq.models.speech_to_text.s2t_transformer import S2TTransformerModel, base_architecture
from fairseq.models.transformer import Embedding
from fairseq.tasks import FairseqTask
from torch import Tensor, nn

from fbk_xattn.errors import InputError
from fbk_xattn.models.conformer_encoder import ConformerEncoder
from fbk_xattn.models.projection import VocabularyProjection

logger = logging.getLogger(__name__)

CTC_BLANK = "<ctc_blank>"


@register_model("conformer")
class ConformerModel(S2TTransformerModel):
    """Conformer encoder with CTC over transcripts, Transformer decoder."""

    @staticmethod
    def add_args(parser: ArgumentParser) -> None:
        """Add the options of the published recipes to fairseq's speech-to-text ones."""
        S2TTransformerModel.add_args(parser)
        add = parser.add_argument
        add(
            "--feed-forward-expansion-factor",
            type=int,
            metavar="N",
            help="inner width of the encoder's feed-forward modules, in multiples of "
            "--encoder-embed-dim, whatever --encoder-ffn-embed-dim says (default: 4)",
        )
        add(
            "--conv-expansion-factor",
            type=int,
            metavar="N",
            help="width before the gated linear unit of the convolution module (only 2)",
        )
        add(
            "--conformer-feedforward-dropout",
            type=float,
            metavar="D",
            help="dropout probability of the encoder's feed-forward modules (default: 0.1)",
        )
        add(
            "--conformer-attention-dropout",
            type=float,
            metavar="D",
            help="dropout probability of the encoder's attention modules (default: 0.1)",
        )
        add(
            "--conformer-conv-dropout",
            type=float,
            metavar="D",
            help="dropout probability of the encoder's convolution modules (default: 0.1)",
        )
        add(
            "--conformer-conv-kernel-size",
            type=int,
            metavar="N",
            help="odd kernel size of the depthwise convolution, in encoder steps (default: 31)",
        )
        add(
            "--conformer-half-step-residual",
            action="store_true",
            help="count feed-forward modules one half in the residual sum (always on; accepted "
            "for published recipes)",
        )
        add(
            "--no-syncbatchnorm",
            action="store_true",
            help="keep batch statistics apart in multi-GPU training",
        )
        add(
            "--batch-unsafe-relative-shift",
            action="store_true",
            help="ignored with a warning: results would depend on the padding of the batch "
            "(accepted for published recipes and checkpoints)",
        )
        add(
            "--ctc-compress-strategy",
            metavar="STR",
            help="only 'none' is supported (default: none)",
        )

    @classmethod
    def build_model(cls, args: Namespace, task: FairseqTask) -> ConformerModel:
        """Build the model.

        Args:
            args: Options; ``args.criterion == "ctc_multi_loss"`` gives the encoder its CTC head.
            task: With ``target_dictionary`` and, for the CTC head, ``transcript_dictionary``.

        Raises:
            InputError: An option of the published system that is not supported, or a size out of
                its range.
        """
        conformer_base(args)
        check_published_options(args)
        if args.decoder_embed_dim % args.decoder_attention_heads:
            raise InputError(
                f"--decoder-attention-heads {args.decoder_attention_heads}: expected a divisor of "
                f"--decoder-embed-dim {args.decoder_embed_dim}"
            )
        embedding = Embedding(
            len(task.target_dictionary), args.decoder_embed_dim, task.target_dictionary.pad()
        )
        with_ctc = getattr(args, "criterion", None) == "ctc_multi_loss"
        n_ctc_symbols = len(task.transcript_dictionary) if with_ctc else None
        encoder = ConformerEncoder(args, n_ctc_symbols)
        return cls(encoder, cls.build_decoder(args, task, embedding))

    def load_state_dict(
        self,
        state_dict: dict[str, Any],
        strict: bool = True,
        model_cfg: Any = None,
        args: Namespace | None = None,
    ) -> Any:
        """Load weights as fairseq does.

        Raises:
            InputError: The weights are of a model of another size.
        """
        own = self.state_dict()
        for name, weight in state_dict.items():
            if name in own and weight.shape != own[name].shape:
                raise InputError(
                    f"checkpoint: {name} is {tuple(weight.shape)}, expected "
                    f"{tuple(own[name].shape)}; is this its data folder (vocabulary) and model?"
                )
        return super().load_state_dict(state_dict, strict, model_cfg, args)

    def upgrade_state_dict_named(self, state_dict: dict[str, Any], name: str) -> None:
        """Accept published checkpoints (see :class:`ConformerEncoder`)."""
        super().upgrade_state_dict_named(state_dict, name)
        own = self.state_dict()
        # A placeholder of fairseq's sinusoidal embedding that some versions save and some do not.
        key = "decoder.embed_positions._float_tensor"
        if key in own:
            state_dict[key] = own[key]
        else:
            state_dict.pop(key, None)


class AuxiliaryDecoder(nn.Module):
    """CTC over target texts on the encoder output, told the target language."""

    def __init__(self, dim: int, n_symbols: int) -> None:
        """Create the head for ``n_symbols`` target symbols, the blank included."""
        super().__init__()
        self.lang_embed_layernorm = nn.LayerNorm(dim)
        self.fc = VocabularyProjection(dim, n_symbols)

    def forward(self, encoder_out: Tensor, padding: Tensor | None, language: Tensor) -> Tensor:
        """Return logits ``(B, T', V + 1)``, 0 on padding; arbitrary there in training.

        Args:
            encoder_out: ``(T', B, d)``.
            padding: ``(B, T')``, true on padding, or ``None``.
            language: ``(B, d)`` embedding of the language tag.
        """
        x = self.lang_embed_layernorm(encoder_out.transpose(0, 1) + language.unsqueeze(1))
        logits: Tensor = self.fc(x)
        # Of the size of the vocabulary, and no loss reads what lies on padding.
        if padding is None or self.training:
            return logits
        return logits.masked_fill(padding.unsqueeze(2), 0.0)


@register_model("conformer_joint_ctc")
class ConformerJointCTCModel(ConformerModel):
    """:class:`ConformerModel` with a second CTC head, over target texts, on the encoder output."""

    def __init__(self, encoder: ConformerEncoder, decoder: FairseqDecoder) -> None:
        """Add the auxiliary head."""
        super().__init__(encoder, decoder)
        embedding = decoder.embed_tokens
        self.auxiliary_decoder = AuxiliaryDecoder(embedding.embedding_dim, embedding.num_embeddings)

    @classmethod
    def build_model(cls, args: Namespace, task: FairseqTask) -> ConformerModel:
        """Build the model; the blank becomes a symbol of the target dictionary too.

        Raises:
            InputError: As for :class:`ConformerModel`, or encoder and decoder differ in dimension.
        """
        conformer_base(args)
        if args.decoder_embed_dim != args.encoder_embed_dim:
            raise InputError(
                f"--decoder-embed-dim {args.decoder_embed_dim}: expected --encoder-embed-dim "
                f"{args.encoder_embed_dim}, as CTC over target texts adds the embedding of the "
                "language to the encoder output"
            )
        task.target_dictionary.add_symbol(CTC_BLANK)
        return super().build_model(args, task)

    def auxiliary_logits(
        self, encoder_out: dict[str, list[Tensor]], prev_output_tokens: Tensor
    ) -> Tensor:
        """Return the logits ``(B, T', V + 1)`` of CTC over target texts.

        They are 0 on padding, in training arbitrary.

        Args:
            encoder_out: Of the encoder.
            prev_output_tokens: ``(B, S)``: eos, language tag, text.
        """
        padding = encoder_out["encoder_padding_mask"]
        return self.auxiliary_decoder(
            encoder_out["encoder_out"][0],
            padding[0] if padding else None,
            self.decoder.embed_tokens(prev_output_tokens[:, 1]),
        )


def check_published_options(args: Namespace) -> None:
    """Refuse or, where it costs nothing, ignore options of the published system.

    Raises:
        InputError: ``--ctc-compress-strategy`` other than ``none``.
    """
    if args.ctc_compress_strategy != "none":
        raise InputError(
            f"--ctc-compress-strategy {args.ctc_compress_strategy}, expected none: "
            "CTC compression is not supported"
        )
    if args.batch_unsafe_relative_shift:
        logger.warning(
            "--batch-unsafe-relative-shift is ignored: the relative shift is over each utterance's "
            "own length, so results do not depend on the padding of the batch"
        )


@register_model_architecture("conformer", "conformer")
@register_model_architecture("conformer", "conformer_base")
@register_model_architecture("conformer_joint_ctc", "conformer_joint_ctc")
@register_model_architecture("conformer_joint_ctc", "conformer_joint_ctc_base")
def conformer_base(args: Namespace) -> None:
    """12 encoder and 6 decoder layers, dimension 512, 8 heads, CTC on layer 8."""
    defaults = {
        "feed_forward_expansion_factor": 4,
        "conv_expansion_factor": 2,
        "conformer_feedforward_dropout": 0.1,
        "conformer_attention_dropout": 0.1,
        "conformer_conv_dropout": 0.1,
        "conformer_conv_kernel_size": 31,
        "conformer_half_step_residual": True,
        "no_syncbatchnorm": False,
        "batch_unsafe_relative_shift": False,
        "ctc_compress_strategy": "none",
        "encoder_layers": 12,
        "ctc_encoder_layer": 8,
    }
    _set_absent(args, defaults)
    base_architecture(args)
    # fairseq takes --bf16 for a TPU's. An architecture is the last to see the flags.
    if getattr(args, "bf16", False) and importlib.util.find_spec("torch_xla") is None:
        args.tpu = False


@register_model_architecture("conformer", "conformer_small")
@register_model_architecture("conformer_joint_ctc", "conformer_joint_ctc_small")
def conformer_small(args: Namespace) -> None:
    """12 encoder and 6 decoder layers, dimension 1024, 16 heads, CTC on layer 8."""
    defaults = {
        "encoder_embed_dim": 1024,
        "encoder_ffn_embed_dim": 4096,
        "encoder_attention_heads": 16,
        "decoder_attention_heads": 16,
    }
    _set_absent(args, defaults)
    conformer_base(args)


@register_model_architecture("conformer", "conformer_large")
@register_model_architecture("conformer_joint_ctc", "conformer_joint_ctc_large")
def conformer_large(args: Namespace) -> None:
    """24 encoder and 12 decoder layers, dimension 1024, 16 heads, CTC on layer 16."""
    _set_absent(args, {"encoder_layers": 24, "decoder_layers": 12, "ctc_encoder_layer": 16})
    conformer_small(args)


def _set_absent(args: Namespace, defaults: dict[str, Any]) -> None:
    """Set what the user did not (fairseq leaves such options out, or ``None``)."""
    for name, value in defaults.items():
        if getattr(args, name, None) is None:
            setattr(args, name, value)
