"""Tables and figures from an attribution store. No torch, no fairseq."""

from fbk_xattn.report.tables import FORMATS, render

__all__ = ["FORMATS", "render"]
