"""Figures of one utterance: its saliency maps beside its cross-attention (paper, Figure 2)."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fbk_xattn.errors import InputError
from fbk_xattn.files import whole_file
from fbk_xattn.report.panels import Panel, panels_of
from fbk_xattn.store import Attribution

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SUFFIXES = (".png", ".svg", ".pdf")
SECONDS_PER_FRAME = 0.01
COLOURS = "magma"
LONGEST_TOKEN = 24
DOTS_PER_INCH = 150

# Inches. Everything but the panels has a fixed size, so a long utterance only gets longer panels.
ROW = 0.19
LOWEST_PANEL = 1.3
MARGIN = 0.2
GAP = 0.28
LINE = 0.19
PANEL_TITLE = 0.62
TIME_AXIS = 0.5
COLOUR_BAR = 0.11
COLOUR_TICKS = 0.3
FIELD = 0.85  # the words "Reference" and "Hypothesis"
CHARACTER = 0.07  # of a letter of the body size, on average


def plot_attribution(
    attribution: Attribution,
    output: Path | str,
    *,
    aggregation: str = "2d-max",
    layers: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
) -> None:
    """Write the figure of :func:`draw_attribution` to a file, all of it or nothing.

    Args:
        attribution: The utterance.
        output: File to write; its suffix, one of :data:`SUFFIXES`, says the format.
        aggregation: How input saliency is brought to encoder steps.
        layers: Decoder layers that cross-attention is averaged over, from 0; all by default.
        heads: Heads of these layers, from 0; all by default.

    Raises:
        InputError: Another suffix, a place that cannot be written, or as for
            :func:`draw_attribution`.
    """
    output = Path(output)
    if output.suffix.lower() not in SUFFIXES:
        raise InputError(f"{output}: expected a file name ending in {', '.join(SUFFIXES)}")
    figure = draw_attribution(attribution, aggregation=aggregation, layers=layers, heads=heads)
    with whole_file(output) as temporary:
        figure.savefig(temporary, format=output.suffix.lower()[1:], dpi=DOTS_PER_INCH)


def draw_attribution(
    attribution: Attribution,
    *,
    aggregation: str = "2d-max",
    layers: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
) -> Figure:
    """Draw input saliency, encoder-output saliency and cross-attention of one utterance.

    Side by side on one token axis (language tag and eos left out) over time in seconds, each with
    its own colour bar. The maps are standardised as for the correlation. A map that the utterance
    was saved without leaves an empty panel that says so.

    Args:
        attribution: The utterance.
        aggregation: How input saliency is brought to encoder steps.
        layers: Decoder layers that cross-attention is averaged over, from 0; all by default.
        heads: Heads of these layers, from 0; all by default.

    Returns:
        A figure that pyplot knows nothing of.

    Raises:
        InputError: The utterance has no content token or none of the maps, the shapes of its maps
            disagree, or there is no such aggregation, layer or head.
    """
    from matplotlib.figure import Figure

    tokens = [shown_token(token) for token in attribution.tokens[attribution.content]]
    if not tokens:
        raise InputError(
            f"utterance {attribution.id!r}: nothing to plot, expected a token besides language tag "
            "and eos"
        )
    panels = panels_of(attribution, aggregation, layers, heads)
    if all(panel.values is None for panel in panels):
        raise InputError(
            f"utterance {attribution.id!r}: nothing to plot, expected a saliency map or "
            "cross-attention"
        )
    seconds = attribution.fbank.shape[0] * SECONDS_PER_FRAME
    labels = MARGIN + CHARACTER * (max(len(token) for token in tokens) + 1)
    panel_width = min(max(2.4 + 0.12 * seconds, 3.2), 6.0)
    panel_height = max(ROW * len(tokens), LOWEST_PANEL)
    width = labels + 3 * panel_width + 2 * GAP + MARGIN
    header = _header(attribution, int((width - 2 * MARGIN - FIELD) / CHARACTER))
    above = MARGIN + LINE * (len(header) + 2) + PANEL_TITLE
    height = above + panel_height + TIME_AXIS + COLOUR_BAR + COLOUR_TICKS

    figure = Figure(figsize=(width, height))
    top = 1 - MARGIN / height
    style: dict[str, Any] = {"va": "top", "size": 9, "parse_math": False}
    languages = f"{attribution.src_lang} → {attribution.tgt_lang}"
    title = f"{' '.join(attribution.id.split())}   ({languages})"
    figure.text(MARGIN / width, top, title, **{**style, "size": 11, "weight": "bold"})
    for number, (field, line) in enumerate(header):
        top = 1 - (MARGIN + (number + 1.3) * LINE) / height
        figure.text(MARGIN / width, top, field, color="0.45", **style)
        figure.text((MARGIN + FIELD) / width, top, line, **style)
    step_seconds = attribution.frames_per_step * SECONDS_PER_FRAME
    bottom = TIME_AXIS + COLOUR_BAR + COLOUR_TICKS
    for number, panel in enumerate(panels):
        left = labels + number * (panel_width + GAP)
        axes = figure.add_axes(_share(left, bottom, panel_width, panel_height, width, height))
        _decorate(axes, panel, seconds, tokens, first=number == 0)
        if panel.values is not None:
            bar = figure.add_axes(
                _share(left, COLOUR_TICKS, panel_width, COLOUR_BAR, width, height)
            )
            _fill(axes, bar, panel, step_seconds)
    return figure


def shown_token(token: str) -> str:
    """Return a token as a label: SentencePiece's word sign as ``_``, cut where it is very long."""
    label = " ".join(token.replace("\N{LOWER ONE EIGHTH BLOCK}", "_").split())
    return label if len(label) <= LONGEST_TOKEN else label[: LONGEST_TOKEN - 1] + "…"


def _header(attribution: Attribution, n_characters: int) -> list[tuple[str, str]]:
    """Return the lines of reference and hypothesis, the first of each after its name."""
    lines = []
    for name, text in (("Reference", attribution.tgt_text), ("Hypothesis", attribution.hypothesis)):
        wrapped = textwrap.wrap(text, max(n_characters, 20)) or ["(empty)"]
        lines += [(name, wrapped[0]), *(("", line) for line in wrapped[1:])]
    return lines


def _share(
    left: float, bottom: float, w: float, h: float, width: float, height: float
) -> tuple[float, float, float, float]:
    """Return a rectangle in inches as shares of the figure."""
    return left / width, bottom / height, w / width, h / height


def _decorate(axes: Axes, panel: Panel, seconds: float, tokens: list[str], *, first: bool) -> None:
    """Set the titles and axes of a panel."""
    axes.set_title(panel.title, loc="left", size=10, weight="bold", pad=28)
    if panel.values is not None:
        lines = f"{panel.scale}\n{panel.note}"
        axes.annotate(
            lines,
            (0, 1),
            (0, 4),
            xycoords="axes fraction",
            textcoords="offset points",
            size=8,
            color="0.4",
        )
    axes.set_xlim(0, seconds)
    axes.set_ylim(len(tokens) - 0.5, -0.5)
    axes.set_yticks(range(len(tokens)), tokens if first else [""] * len(tokens), parse_math=False)
    axes.set_xlabel("time (s)", size=8)
    axes.tick_params(labelsize=8, length=2.5, color="0.5")
    axes.tick_params(axis="y", left=first)
    for spine in axes.spines.values():
        spine.set_color("0.6")
    if panel.values is None:
        axes.set_facecolor("0.94")
        axes.text(0.5, 0.5, panel.note, size=9, color="0.35", transform=axes.transAxes, ha="center")


def _fill(axes: Axes, bar: Axes, panel: Panel, step_seconds: float) -> None:
    """Draw the map and its colour bar, whose ends are pointed where values lie beyond."""
    values = panel.values
    if values is None:
        return
    low, high = panel.limits
    n_tokens, n_steps = values.shape
    image = axes.imshow(
        values,
        cmap=COLOURS,
        vmin=low,
        vmax=high,
        aspect="auto",
        interpolation="nearest",
        # The last step may cover fewer frames than the others: the limits of the axis cut it.
        extent=(0, n_steps * step_seconds, n_tokens - 0.5, -0.5),
    )
    beyond = {(False, False): "neither", (True, False): "min", (False, True): "max"}
    extend = beyond.get((bool(values.min() < low), bool(values.max() > high)), "both")
    colour_bar = axes.figure.colorbar(image, cax=bar, orientation="horizontal", extend=extend)
    colour_bar.outline.set_edgecolor("0.6")
    bar.tick_params(labelsize=7, length=2, color="0.5")
