"""An interactive page of an attribution store: one HTML file that needs nothing else."""

from fbk_xattn.report.html.page import Page, build_page

__all__ = ["Page", "build_page"]
