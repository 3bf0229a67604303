"""Analysis of an attribution store: aggregation, normalisation, correlation. Never torch."""

from fbk_xattn.analysis.aggregation import AGGREGATIONS, aggregate
from fbk_xattn.analysis.correlation import correlate, correlate_targets, correlate_utterance
from fbk_xattn.analysis.maps import TARGETS, mean_cross_attention, saliency_map
from fbk_xattn.analysis.normalization import frame_wise, mean_std
from fbk_xattn.analysis.table import CorrelationTable

__all__ = [
    "AGGREGATIONS",
    "TARGETS",
    "CorrelationTable",
    "aggregate",
    "correlate",
    "correlate_targets",
    "correlate_utterance",
    "frame_wise",
    "mean_cross_attention",
    "mean_std",
    "saliency_map",
]
