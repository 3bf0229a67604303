"""Tables and plots from an attribution store. No torch, no fairseq."""

from fbk_xattn.report.plots import draw_attribution, plot_attribution
from fbk_xattn.report.tables import FORMATS, render

__all__ = ["FORMATS", "draw_attribution", "plot_attribution", "render"]
