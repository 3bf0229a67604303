"""Figures of a store, drawn without pyplot. Importing this needs no matplotlib, drawing does."""

from fbk_xattn.report.figures.curves import draw_curves
from fbk_xattn.report.figures.distribution import KINDS, draw_distribution
from fbk_xattn.report.figures.heads import draw_heads
from fbk_xattn.report.figures.maps import ARRANGEMENTS, draw_maps
from fbk_xattn.report.figures.output import SUFFIXES, save_figure
from fbk_xattn.report.figures.spectrogram import draw_spectrogram
from fbk_xattn.report.figures.style import WIDTHS

__all__ = [
    "ARRANGEMENTS",
    "KINDS",
    "SUFFIXES",
    "WIDTHS",
    "draw_curves",
    "draw_distribution",
    "draw_heads",
    "draw_maps",
    "draw_spectrogram",
    "save_figure",
]
