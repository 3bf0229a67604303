"""Analysis of an attribution store: aggregation, normalisation, correlation. Never torch."""

from fbk_xattn.analysis.aggregation import AGGREGATIONS, aggregate
from fbk_xattn.analysis.bootstrap import Bootstrap
from fbk_xattn.analysis.coefficients import COEFFICIENTS
from fbk_xattn.analysis.correlation import (
    correlate,
    correlate_store,
    correlate_targets,
    correlate_utterance,
)
from fbk_xattn.analysis.maps import TARGETS, mean_cross_attention, saliency_map
from fbk_xattn.analysis.normalization import STANDARDISED, frame_wise, mean_std
from fbk_xattn.analysis.normalizers import NORMALIZERS, SaliencyPair, normalize
from fbk_xattn.analysis.table import CorrelationTable, Setting
from fbk_xattn.analysis.tokens import TokenSummary, TokenTable, correlate_tokens

__all__ = [
    "AGGREGATIONS",
    "COEFFICIENTS",
    "NORMALIZERS",
    "STANDARDISED",
    "TARGETS",
    "Bootstrap",
    "CorrelationTable",
    "SaliencyPair",
    "Setting",
    "TokenSummary",
    "TokenTable",
    "aggregate",
    "correlate",
    "correlate_store",
    "correlate_targets",
    "correlate_tokens",
    "correlate_utterance",
    "frame_wise",
    "mean_cross_attention",
    "mean_std",
    "normalize",
    "saliency_map",
]
