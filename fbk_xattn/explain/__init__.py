"""Occlusion attribution: segmentation, masks, occlusion, scoring, accumulation."""

from fbk_xattn.explain.explainer import Explainer, LevelScores
from fbk_xattn.explain.masks import MaskSampler
from fbk_xattn.explain.occlusion import occlude_encoder_output, occlude_input
from fbk_xattn.explain.scoring import kl_divergence
from fbk_xattn.explain.segmentation import EncoderSteps, SlicPyramid
from fbk_xattn.explain.utterance import Utterance

__all__ = [
    "EncoderSteps",
    "Explainer",
    "LevelScores",
    "MaskSampler",
    "SlicPyramid",
    "Utterance",
    "kl_divergence",
    "occlude_encoder_output",
    "occlude_input",
]
