"""Flags of the tasks that ask for explanations."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fbk_xattn.errors import InputError
from fbk_xattn.explain import (
    EncoderSteps,
    Explainer,
    MaskSampler,
    SlicPyramid,
    kl_divergence,
    occlude_encoder_output,
    occlude_input,
)

TARGETS = ("input", "encoder")


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
        help="probability of occluding a segment of the input, 0 to 1 (default: 0.5)",
    )
    add(
        "--encoder-occlusion-probability",
        type=float,
        default=0.7,
        metavar="P",
        help="probability of occluding an encoder step, 0 to 1 (default: 0.7)",
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


@dataclass(frozen=True)
class ExplanationOptions:
    """The flags of :func:`add_explanation_args`, checked.

    Attributes are named as the flags; ``seed`` is fairseq's ``--seed``.
    """

    attribution_dir: Path
    save_cross_attention: bool
    targets: tuple[str, ...]
    num_masks: int
    seed: int
    perturbations_per_eval: int
    input_occlusion_probability: float
    encoder_occlusion_probability: float
    slic: SlicPyramid

    @classmethod
    def from_args(cls, args: Namespace) -> ExplanationOptions | None:
        """Check the flags; return ``None`` when no store is asked for.

        Raises:
            InputError: An unknown target, a value out of range, or an explanation without store.
        """
        targets = args.explain or []
        for target in targets:
            if target not in TARGETS:
                raise InputError(f"--explain {target}: expected {' or '.join(TARGETS)}")
        if args.attribution_dir is None:
            if targets or args.save_cross_attention:
                flag = "--explain" if targets else "--save-cross-attention"
                raise InputError(f"{flag} without --attribution-dir: expected a folder to write to")
            return None
        if args.num_masks < 1:
            raise InputError(f"--num-masks {args.num_masks}: expected at least 1")
        if args.perturbations_per_eval < 0:
            raise InputError(
                f"--perturbations-per-eval {args.perturbations_per_eval}: expected 0 or more"
            )
        for name in TARGETS:
            probability = getattr(args, f"{name}_occlusion_probability")
            try:
                MaskSampler(probability)
            except ValueError:
                raise InputError(
                    f"--{name}-occlusion-probability {probability}: expected between 0 and 1"
                ) from None
        if min(args.slic_segments_per_second) <= 0 or args.slic_cap_seconds <= 0:
            raise InputError(
                "--slic-segments-per-second and --slic-cap-seconds: expected more than 0"
            )
        return cls(
            attribution_dir=Path(args.attribution_dir),
            save_cross_attention=args.save_cross_attention,
            targets=tuple(target for target in TARGETS if target in targets),
            num_masks=args.num_masks,
            seed=args.seed,
            perturbations_per_eval=args.perturbations_per_eval,
            input_occlusion_probability=args.input_occlusion_probability,
            encoder_occlusion_probability=args.encoder_occlusion_probability,
            slic=SlicPyramid(
                tuple(args.slic_segments_per_second),
                args.slic_cap_seconds,
                args.slic_sigma,
                args.slic_compactness,
            ),
        )

    def explainers(self) -> list[Explainer]:
        """Return the attribution method of each target."""
        methods = {
            "input": Explainer(
                "input",
                self.slic,
                MaskSampler(self.input_occlusion_probability),
                occlude_input,
                kl_divergence,
            ),
            "encoder": Explainer(
                "encoder",
                EncoderSteps(),
                MaskSampler(self.encoder_occlusion_probability),
                occlude_encoder_output,
                kl_divergence,
            ),
        }
        return [methods[target] for target in self.targets]

    def parameters(self) -> dict[str, Any]:
        """Return what the explanations depend on, by flag, for the store's ``meta.json``.

        A parameter of a target that is not explained is left out.
        """
        parameters: dict[str, Any] = {
            "--save-cross-attention": self.save_cross_attention,
            "--explain": list(self.targets),
        }
        if self.targets:
            parameters |= {"--num-masks": self.num_masks, "--seed": self.seed}
        if "input" in self.targets:
            parameters |= {
                "--input-occlusion-probability": self.input_occlusion_probability,
                "--slic-segments-per-second": list(self.slic.segments_per_second),
                "--slic-cap-seconds": self.slic.cap_seconds,
                "--slic-sigma": self.slic.sigma,
                "--slic-compactness": self.slic.compactness,
            }
        if "encoder" in self.targets:
            parameters["--encoder-occlusion-probability"] = self.encoder_occlusion_probability
        return parameters
