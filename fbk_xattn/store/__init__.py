"""Stores: one file an utterance, provenance, resume. Reading needs numpy alone."""

from fbk_xattn.store.attribution import Attribution, SegmentLevel, SegmentSaliency
from fbk_xattn.store.curves import CurveStore, DecodedCurve, DecodedStep
from fbk_xattn.store.directory import AttributionStore

__all__ = [
    "Attribution",
    "AttributionStore",
    "CurveStore",
    "DecodedCurve",
    "DecodedStep",
    "SegmentLevel",
    "SegmentSaliency",
]
