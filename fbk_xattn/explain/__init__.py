"""Occlusion attribution: segmentation, masks, occlusion, scoring, accumulation."""

from fbk_xattn.explain.batching import perturbations_per_eval
from fbk_xattn.explain.explainer import Explainer, LevelScores
from fbk_xattn.explain.masks import MaskSampler
from fbk_xattn.explain.occlusion import occlude_encoder_output, occlude_input
from fbk_xattn.explain.previous_tokens import JointExplainer, JointScores, token_saliency
from fbk_xattn.explain.scoring import SCORERS, kl_divergence, probability_difference
from fbk_xattn.explain.segmentation import (
    INPUT_SEGMENTERS,
    Bands,
    Cells,
    EncoderSteps,
    Frames,
    SegmentationAhead,
    SlicPyramid,
)
from fbk_xattn.explain.utterance import Utterance

__all__ = [
    "INPUT_SEGMENTERS",
    "SCORERS",
    "Bands",
    "Cells",
    "EncoderSteps",
    "Explainer",
    "Frames",
    "JointExplainer",
    "JointScores",
    "LevelScores",
    "MaskSampler",
    "SegmentationAhead",
    "SlicPyramid",
    "Utterance",
    "kl_divergence",
    "occlude_encoder_output",
    "occlude_input",
    "perturbations_per_eval",
    "probability_difference",
    "token_saliency",
]
