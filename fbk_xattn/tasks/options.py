"""Flags of the tasks that ask for explanations."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Collection, Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from fairseq.models import FairseqDecoder

from fbk_xattn.errors import InputError
from fbk_xattn.explain import (
    INPUT_SEGMENTERS,
    SCORERS,
    EncoderSteps,
    Explainer,
    JointExplainer,
    MaskSampler,
    Utterance,
    occlude_encoder_output,
    occlude_input,
)
from fbk_xattn.explain.segmentation import InputSegmenter, Labels
from fbk_xattn.generation.recorder import RECORDERS, CrossAttentionRecorder

TARGETS = ("input", "encoder")
# The flags that do not say how a target is explained.
NOT_OF_A_METHOD = ("attribution_dir", "save_cross_attention", "cross_attention", "explain")
PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
# Of occluded copies where no flag says so, by device: half precision is slow on most CPUs.
DEFAULT_PRECISION = {"cuda": "fp16", "cpu": "fp32"}


def add_explanation_args(parser: ArgumentParser) -> None:
    """Add the flags; every default is the paper's setting."""
    group = parser.add_argument_group("explanation (fairseq-generate)")
    add = group.add_argument
    add(
        "--attribution-dir",
        metavar="DIR",
        help="attribution store to write hypotheses and explanations to; utterances that it holds "
        "are not explained again",
    )
    add(
        "--save-cross-attention",
        action="store_true",
        help="store the cross-attention of every layer and head",
    )
    add(
        "--cross-attention",
        default="weights",
        metavar="KIND",
        help="what --save-cross-attention stores for a token and an encoder step: weights (0 to 1, "
        "of all steps 1 together) or norms (of the step's value after the output projection, times "
        "its weight, 0 or more; Kobayashi et al. 2020) (default: weights)",
    )
    add(
        "--explain",
        nargs="+",
        metavar="TARGET",
        default=[],
        help="what to explain by occlusion: input (saliency of the filterbanks), encoder (saliency "
        "of the encoder output), or both",
    )
    add(
        "--num-masks",
        type=int,
        default=20_000,
        metavar="N",
        help="occlusion masks for each utterance and target (default: 20000)",
    )
    add(
        "--input-occlusion-probability",
        type=float,
        default=0.5,
        metavar="P",
        help="probability of occluding a segment of the input, more than 0, at most 1 (default: "
        "0.5)",
    )
    add(
        "--encoder-occlusion-probability",
        type=float,
        default=0.7,
        metavar="P",
        help="probability of occluding an encoder step, more than 0, at most 1 (default: 0.7)",
    )
    add(
        "--previous-token-occlusion-probability",
        type=float,
        default=0.0,
        metavar="P",
        help="probability of occluding a token that the decoder is given, in every mask of the "
        "input, 0 to 1; saves the saliency of the previous tokens too (default: 0, none is)",
    )
    add(
        "--scorer",
        default="kl",
        metavar="SCORER",
        help="score of a token under a mask: kl (divergence from the original distribution, in "
        "nats) or probability (that the token of the hypothesis lost) (default: kl)",
    )
    add(
        "--input-segmentation",
        default="slic",
        metavar="SEGMENTATION",
        help="what of the input is occluded together: slic (superpixels), cell (each cell by "
        "itself), frame (all mel bins of a frame) or band (a mel bin over the whole utterance) "
        "(default: slic)",
    )
    add(
        "--slic-segments-per-second",
        type=float,
        nargs="+",
        default=[400, 500, 600],
        metavar="N",
        help="requested superpixels a second of speech, one value a level (default: 400 500 600)",
    )
    add(
        "--slic-cap-seconds",
        type=float,
        default=7.5,
        metavar="S",
        help="length in seconds from which on the number of superpixels is constant (default: 7.5)",
    )
    add(
        "--slic-sigma",
        type=float,
        default=0.0,
        metavar="CELLS",
        help="width of the Gaussian smoothing before segmentation, in cells (default: 0, none)",
    )
    add(
        "--slic-compactness",
        type=float,
        default=0.1,
        metavar="C",
        help="weight of closeness against similarity of energy in segmentation (default: 0.1)",
    )
    add(
        "--perturbations-per-eval",
        type=int,
        default=0,
        metavar="N",
        help="occluded copies in one pass of the model; changes speed and memory, never masks "
        "(default: 0, chosen from the length of the utterance)",
    )
    add(
        "--explanation-precision",
        default="auto",
        metavar="PRECISION",
        help="in which occluded copies go through the model, the hypothesis aside: fp32, fp16, "
        "bf16, or auto, which is fp16 on a GPU and fp32 on a CPU (default: auto)",
    )


@dataclass(frozen=True)
class ExplanationOptions:
    """The flags of :func:`add_explanation_args`, checked.

    Attributes are named as the flags; ``seed`` is fairseq's ``--seed``, ``input_segmenter`` has the
    settings that belong to ``input_segmentation``, and ``explanation_precision`` is never ``auto``.
    """

    attribution_dir: Path
    save_cross_attention: bool
    cross_attention: str
    targets: tuple[str, ...]
    num_masks: int
    seed: int
    perturbations_per_eval: int
    input_occlusion_probability: float
    encoder_occlusion_probability: float
    previous_token_occlusion_probability: float
    scorer: str
    input_segmentation: str
    input_segmenter: InputSegmenter
    explanation_precision: str

    @classmethod
    def from_args(cls, args: Namespace) -> ExplanationOptions | None:
        """Check the flags; return ``None`` when no store is asked for.

        Raises:
            InputError: An unknown target, a value out of range, or an explanation without store.
        """
        targets = args.explain or []
        for target in targets:
            _check_name("--explain", target, TARGETS)
        _check_effect(args, targets)
        _check_name("--cross-attention", args.cross_attention, RECORDERS)
        if args.cross_attention != "weights" and not args.save_cross_attention:
            raise InputError(
                f"--cross-attention {args.cross_attention} without --save-cross-attention: "
                "expected both, as none is stored otherwise"
            )
        _check_name("--scorer", args.scorer, SCORERS)
        _check_name("--input-segmentation", args.input_segmentation, INPUT_SEGMENTERS)
        _check_name("--explanation-precision", args.explanation_precision, ("auto", *PRECISIONS))
        if args.attribution_dir is None:
            if targets or args.save_cross_attention:
                flag = "--explain" if targets else "--save-cross-attention"
                raise InputError(f"{flag} without --attribution-dir: expected a folder to write to")
            return None
        if not args.attribution_dir:
            raise InputError("--attribution-dir '': expected a folder to write to")
        if args.num_masks < 1:
            raise InputError(f"--num-masks {args.num_masks}: expected at least 1")
        if args.perturbations_per_eval < 0:
            raise InputError(
                f"--perturbations-per-eval {args.perturbations_per_eval}: expected 0 or more"
            )
        for name in TARGETS:
            _check_probability(
                f"--{name}-occlusion-probability",
                getattr(args, f"{name}_occlusion_probability"),
                "more than 0 and at most 1, as without occlusion there is nothing to see",
            )
        if args.previous_token_occlusion_probability != 0:
            _check_probability(
                "--previous-token-occlusion-probability",
                args.previous_token_occlusion_probability,
                "0 (none is occluded) to 1",
            )
        return cls(
            attribution_dir=Path(args.attribution_dir),
            save_cross_attention=args.save_cross_attention,
            cross_attention=args.cross_attention,
            targets=tuple(target for target in TARGETS if target in targets),
            num_masks=args.num_masks,
            seed=args.seed,
            perturbations_per_eval=args.perturbations_per_eval,
            input_occlusion_probability=args.input_occlusion_probability,
            encoder_occlusion_probability=args.encoder_occlusion_probability,
            previous_token_occlusion_probability=args.previous_token_occlusion_probability,
            scorer=args.scorer,
            input_segmentation=args.input_segmentation,
            input_segmenter=_input_segmenter(args),
            explanation_precision=_precision(args),
        )

    @property
    def dtype(self) -> torch.dtype:
        """Of the explanation precision."""
        return PRECISIONS[self.explanation_precision]

    def recorder(self, decoder: FairseqDecoder) -> CrossAttentionRecorder | None:
        """Return what records the cross-attention to store, if any is.

        Raises:
            InputError: The decoder has none.
        """
        return RECORDERS[self.cross_attention](decoder) if self.save_cross_attention else None

    def explainers(
        self, input_segmenter: Callable[[Utterance], list[Labels]] | None = None
    ) -> list[Explainer | JointExplainer]:
        """Return the attribution method of each target.

        Args:
            input_segmenter: To take instead of the one of the flags, with the same result.
        """
        methods: dict[str, Explainer | JointExplainer] = {
            "input": self._input_explainer(input_segmenter or self.input_segmenter),
            "encoder": Explainer(
                "encoder",
                EncoderSteps(),
                MaskSampler(self.encoder_occlusion_probability),
                occlude_encoder_output,
                SCORERS[self.scorer],
            ),
        }
        return [methods[target] for target in self.targets]

    def _input_explainer(
        self, segmenter: Callable[[Utterance], list[Labels]]
    ) -> Explainer | JointExplainer:
        explainer = Explainer(
            "input",
            segmenter,
            MaskSampler(self.input_occlusion_probability),
            occlude_input,
            SCORERS[self.scorer],
        )
        if self.previous_token_occlusion_probability == 0:
            return explainer
        return JointExplainer(explainer, MaskSampler(self.previous_token_occlusion_probability))

    def parameters(self) -> dict[str, Any]:
        """Return what the explanations depend on, by flag, for the store's ``meta.json``.

        A parameter of a target that is not explained is left out.
        """
        parameters: dict[str, Any] = {
            "--save-cross-attention": self.save_cross_attention,
            "--explain": list(self.targets),
        }
        if self.save_cross_attention:
            parameters["--cross-attention"] = self.cross_attention
        if self.targets:
            parameters |= {
                "--num-masks": self.num_masks,
                "--seed": self.seed,
                "--scorer": self.scorer,
                "--explanation-precision": self.explanation_precision,
            }
        if "input" in self.targets:
            parameters |= {
                "--input-occlusion-probability": self.input_occlusion_probability,
                "--previous-token-occlusion-probability": self.previous_token_occlusion_probability,
                "--input-segmentation": self.input_segmentation,
                **{
                    _setting_flag(self.input_segmentation, name): value
                    for name, value in asdict(self.input_segmenter).items()
                },
            }
        if "encoder" in self.targets:
            parameters["--encoder-occlusion-probability"] = self.encoder_occlusion_probability
        return parameters


def _check_name(flag: str, name: str, known: Iterable[str]) -> None:
    if name not in known:
        *others, last = known
        raise InputError(f"{flag} {name}: expected {', '.join(others)} or {last}")


def _check_effect(args: Namespace, targets: Collection[str]) -> None:
    """Check that no flag is set that nothing would come of."""
    parser = ArgumentParser()
    add_explanation_args(parser)
    of_input = ("input_", "previous_token_", *(f"{name}_" for name in INPUT_SEGMENTERS))
    for name, usual in vars(parser.parse_args([])).items():
        value = getattr(args, name)
        if value == usual or name in NOT_OF_A_METHOD:
            continue
        needed = [target for target in TARGETS if name.startswith(f"{target}_")]
        needed += ["input"] * (not needed and name.startswith(of_input))
        if not targets or not {*needed} <= {*targets}:
            explain = " ".join(["--explain", *(needed or ["TARGET"])])
            raise InputError(
                f"--{name.replace('_', '-')} {value} without {explain}: expected both, as it would "
                "change nothing"
            )


def _precision(args: Namespace) -> str:
    """Return the precision that is meant."""
    if args.explanation_precision != "auto":
        return str(args.explanation_precision)
    on_gpu = torch.cuda.is_available() and not getattr(args, "cpu", False)
    return DEFAULT_PRECISION["cuda" if on_gpu else "cpu"]


def _check_probability(flag: str, probability: float, expected: str) -> None:
    try:
        MaskSampler(probability)
    except ValueError:
        raise InputError(f"{flag} {probability}: expected {expected}") from None


def _as_flag(value: Any) -> Any:
    """Return a setting as the command line has it."""
    return list(value) if isinstance(value, tuple) else value


def _setting_flag(segmentation: str, setting: str) -> str:
    return f"--{segmentation}-{setting.replace('_', '-')}"


def _input_segmenter(args: Namespace) -> InputSegmenter:
    """Build the segmenter of ``--input-segmentation`` from the flags that are named after it."""
    name = args.input_segmentation
    kind = INPUT_SEGMENTERS[name]
    for other in INPUT_SEGMENTERS.keys() - {name}:
        for field in fields(INPUT_SEGMENTERS[other]):
            value = getattr(args, f"{other}_{field.name}")
            if value != _as_flag(field.default):
                raise InputError(
                    f"{_setting_flag(other, field.name)} {value} with --input-segmentation {name}: "
                    f"expected --input-segmentation {other}"
                )
    settings: dict[str, Any] = {}
    for field in fields(kind):
        value = getattr(args, f"{name}_{field.name}")
        settings[field.name] = tuple(value) if isinstance(value, list) else value
    try:
        return kind(**settings)
    except ValueError as error:
        setting, _, rest = str(error).partition(" ")
        raise InputError(f"{_setting_flag(name, setting)} {rest}") from None
