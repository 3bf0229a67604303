"""Saliency maps beside cross-attention, of one utterance or several (paper, Figures 2 and 4)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fbk_xattn.analysis.maps import TARGETS
from fbk_xattn.errors import InputError
from fbk_xattn.report.figures.axes import colour_bar, mark_time
from fbk_xattn.report.figures.header import header_lines, header_texts, write_header
from fbk_xattn.report.figures.output import DOTS_PER_INCH
from fbk_xattn.report.figures.sheet import Sheet
from fbk_xattn.report.figures.style import (
    BODY,
    FAINT,
    LINE,
    MAP_COLOURS,
    MARGIN,
    NOTHING,
    RIGHT_MARGIN,
    SECONDS_PER_FRAME,
    SMALL,
    WIDTHS,
    drawing,
    lines_height,
)
from fbk_xattn.report.figures.text import row_labels, shortened, text_width, wrapped
from fbk_xattn.report.panels import Panel, panels_of
from fbk_xattn.store import Attribution

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Utterances below each other with their maps side by side, or each in a column of its own.
ARRANGEMENTS = ("rows", "columns")

# Inches.
ROW, LOWEST_ROW = 0.145, 0.108  # the second still has room for the smallest letters
TALLEST = 6.5  # of the panels of a column, before rows become lower
LOWEST_PANEL = 0.5
GAP = 0.16  # between panels
LABEL_GAP = 0.06
HALF_LETTER = 0.36  # of a capital, as a share of the size of the letters
LABEL_SHARE = 0.2  # of the width of a column with labels, at most
TITLE_GAP = 0.03
SMOOTHED_BELOW = 3  # dots
TIME_TICKS, TIME_LABEL = 0.13, 0.13
BAR, BAR_TICKS = 0.06, 0.17
BETWEEN = 0.14  # rows of panels


@dataclass(frozen=True)
class _Block:
    """An utterance as it is drawn."""

    attribution: Attribution
    labels: list[str]
    panels: list[Panel]
    tallest: float  # inches that its panels take before rows become lower

    @property
    def seconds(self) -> float:
        return self.attribution.fbank.shape[0] * SECONDS_PER_FRAME

    @property
    def row(self) -> float:
        """Height of a row in inches."""
        return max(LOWEST_ROW, min(ROW, self.tallest / len(self.labels)))

    @property
    def height(self) -> float:
        return max(self.row * len(self.labels), LOWEST_PANEL)

    @property
    def letters(self) -> float:
        """Size of the labels in points."""
        return min(BODY, max(SMALL, self.row * 72 / LINE))

    def label_width(self, most: float) -> float:
        widest = max(text_width(label, self.letters) for label in self.labels)
        return min(widest, most) + LABEL_GAP


@dataclass(frozen=True)
class _Cell:
    """Where a panel goes; ``label_width`` is 0 where the labels of another stand for it."""

    block: _Block
    panel: Panel
    left: float
    width: float
    label_width: float = 0.0


@dataclass(frozen=True)
class _Scale:
    """What all panels have in common: the end of the time axis, and perhaps the colours."""

    seconds: float
    limits: tuple[float, float] | None = None


def draw_maps(
    attributions: Sequence[Attribution],
    *,
    width: float = WIDTHS["page"],
    aggregation: str = "2d-max",
    layers: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
    words: str | None = None,
    same_scale: bool = False,
    arrangement: str = "rows",
    header: bool = True,
    stored: Sequence[str] = (),
) -> Figure:
    """Draw input saliency, encoder-output saliency and cross-attention of utterances.

    The maps of an utterance have one token axis (language tag and eos left out), and all panels the
    same time axis in seconds. They are standardised as for the correlation, and the notes above the
    saliency maps give Pearson's r. A map that the utterance was saved without leaves an empty panel
    that says so.

    Args:
        attributions: The utterances, such as one decoded for two tasks.
        width: Of the figure in inches, see :data:`WIDTHS`.
        aggregation: How input saliency is brought to encoder steps.
        layers: Decoder layers that cross-attention is averaged over, from 0; all by default.
        heads: Heads of these layers, from 0; all by default.
        words: ``mean`` or ``max``, how the rows of tokens are joined to those of words; rows are
            tokens by default.
        same_scale: Whether all panels have the same colours for the same values, from the lowest to
            the highest of their own scales.
        arrangement: One of :data:`ARRANGEMENTS`: each utterance a row of three panels, or a column.
        header: Whether to write id, languages, reference and hypothesis.
        stored: What was stored of the cross-attention of each utterance, names in
            :data:`~fbk_xattn.analysis.maps.STORED_CROSS_ATTENTION`; weights by default.

    Returns:
        A figure that pyplot knows nothing of.

    Raises:
        InputError: No utterance, one without content token or without any of the maps, maps whose
            shapes disagree, or no such width, aggregation, joining, layer, head or arrangement.
    """
    if arrangement not in ARRANGEMENTS:
        raise InputError(f"arrangement {arrangement!r}: expected {' or '.join(ARRANGEMENTS)}")
    if not attributions:
        raise InputError("no utterance to draw, expected at least one")
    tallest = TALLEST / (len(attributions) if arrangement == "rows" else len(TARGETS) + 1)
    kinds = stored or ["weights"] * len(attributions)
    blocks = [
        _block(a, aggregation, layers, heads, words, kind, tallest)
        for a, kind in zip(attributions, kinds, strict=True)
    ]
    texts = [text for block in blocks for text in (*block.labels, *header_texts(block.attribution))]
    limits = None
    if same_scale:
        ends = [p.limits for block in blocks for p in block.panels if p.values is not None]
        limits = (min(low for low, _ in ends), max(high for _, high in ends))
    scale = _Scale(max(block.seconds for block in blocks), limits)
    with drawing(texts):
        sheet = Sheet(width)
        draw = _draw_rows if arrangement == "rows" else _draw_columns
        top, images = draw(sheet, blocks, scale, header=header)
        if same_scale:
            image = next(axes for axes in images if axes.images)
            bar = sheet.axes(MARGIN + 0.25 * width, top, 0.5 * width, BAR)
            beyond = _beyond([p for block in blocks for p in block.panels], scale)
            colour_bar(bar, image.images[0], beyond, "all panels")
            top += BAR + BAR_TICKS
        return sheet.finish(top + MARGIN)


def _block(
    attribution: Attribution,
    aggregation: str,
    layers: Sequence[int] | None,
    heads: Sequence[int] | None,
    words: str | None,
    stored: str,
    tallest: float,
) -> _Block:
    labels = row_labels(attribution.tokens[attribution.content], words=words is not None)
    if not labels:
        raise InputError(
            f"utterance {attribution.id!r}: nothing to plot, expected a token besides language tag "
            "and eos"
        )
    panels = panels_of(attribution, aggregation, layers, heads, words, stored)
    if all(panel.values is None for panel in panels):
        raise InputError(
            f"utterance {attribution.id!r}: nothing to plot, expected a saliency map or "
            "cross-attention"
        )
    return _Block(attribution, labels, panels, tallest)


def _draw_rows(
    sheet: Sheet, blocks: list[_Block], scale: _Scale, *, header: bool
) -> tuple[float, list[Axes]]:
    """Draw each utterance as a row of panels; return where they end, and the axes."""
    labels = max(block.label_width(LABEL_SHARE * sheet.width) for block in blocks)
    n_panels = len(blocks[0].panels)
    room = sheet.width - MARGIN - RIGHT_MARGIN - labels - (n_panels - 1) * GAP
    panel_width = room / n_panels
    top, drawn = MARGIN, []
    for number, block in enumerate(blocks):
        top += BETWEEN * (number > 0)
        if header:
            top = write_header(sheet, block.attribution, MARGIN, top, sheet.width - 2 * MARGIN)
        cells = [
            _Cell(
                block,
                panel,
                MARGIN + labels + index * (panel_width + GAP),
                panel_width,
                labels if index == 0 else 0.0,
            )
            for index, panel in enumerate(block.panels)
        ]
        last = number == len(blocks) - 1
        top, axes = _draw_row(sheet, cells, top, scale, time_label=last)
        drawn += axes
    return top, drawn


def _draw_columns(
    sheet: Sheet, blocks: list[_Block], scale: _Scale, *, header: bool
) -> tuple[float, list[Axes]]:
    """Draw each utterance as a column of panels; return where they end, and the axes."""
    gaps = (len(blocks) - 1) * GAP
    room = (sheet.width - MARGIN - RIGHT_MARGIN - gaps) / len(blocks)
    # One width for all, so that a second is as long in every column.
    labels = max(block.label_width(LABEL_SHARE * room) for block in blocks)
    lefts = [MARGIN + number * (room + GAP) for number in range(len(blocks))]
    top, drawn = MARGIN, []
    if header:
        height = max(len(header_lines(block.attribution, room)) for block in blocks)
        for block, left in zip(blocks, lefts, strict=True):
            top_of_panels = write_header(sheet, block.attribution, left, top, room, height)
        top = top_of_panels
    n_panels = len(blocks[0].panels)
    for index in range(n_panels):
        cells = [
            _Cell(block, block.panels[index], left + labels, room - labels, labels)
            for block, left in zip(blocks, lefts, strict=True)
        ]
        last = index == n_panels - 1
        top, axes = _draw_row(sheet, cells, top + BETWEEN * (index > 0), scale, time_label=last)
        drawn += axes
    return top, drawn


def _draw_row(
    sheet: Sheet,
    cells: list[_Cell],
    top: float,
    scale: _Scale,
    *,
    time_label: bool,
) -> tuple[float, list[Axes]]:
    """Draw panels of one height side by side; return where they end, and their axes."""
    titles = [wrapped(cell.panel.title, cell.width, BODY, bold=True) for cell in cells]
    notes = [_notes(cell) for cell in cells]
    title_height = lines_height(max(map(len, titles)), BODY)
    above = title_height + lines_height(max(map(len, notes)), SMALL)
    height = max(cell.block.height for cell in cells)
    drawn = []
    for cell, title, lines in zip(cells, titles, notes, strict=True):
        free = title_height - lines_height(len(title), BODY)
        sheet.text(cell.left, top + free, title, weight="bold")
        sheet.text(cell.left, top + title_height, lines, size=SMALL, color=FAINT)
        axes = sheet.axes(cell.left, top + above + TITLE_GAP, cell.width, height)
        _fill(axes, cell, scale)
        axes.set_xlabel("time (s)" if time_label else "")
        drawn.append(axes)
    end = top + above + TITLE_GAP + height + TIME_TICKS + TIME_LABEL * time_label
    if scale.limits is not None:
        return end + 0.04, drawn
    for cell, axes in zip(cells, drawn, strict=True):
        if axes.images:
            bar = sheet.axes(cell.left, end + 0.04, cell.width, BAR)
            colour_bar(bar, axes.images[0], _beyond([cell.panel], scale))
    return end + 0.04 + BAR + BAR_TICKS, drawn


def _notes(cell: _Cell) -> list[str]:
    """Return the lines below a panel's title."""
    panel = cell.panel
    notes = [] if panel.values is None else [panel.scale, panel.note]
    return [line for note in notes if note for line in wrapped(note, cell.width, SMALL)]


def _fill(axes: Axes, cell: _Cell, scale: _Scale) -> None:
    """Draw a map with its labels, or say that it is absent."""
    block, panel = cell.block, cell.panel
    n_tokens = len(block.labels)
    axes.set_facecolor(NOTHING)
    mark_time(axes, scale.seconds, cell.width)
    axes.set_ylim(n_tokens - 0.5, -0.5)
    axes.set_yticks(range(n_tokens), [""] * n_tokens)
    if cell.label_width:
        _label_rows(axes, cell)
    else:
        axes.tick_params(axis="y", left=False)
    if panel.values is None:
        lines = wrapped(panel.note, cell.width - 0.1, SMALL)
        axes.text(
            0.5, 0.5, "\n".join(lines), size=SMALL, color=FAINT, transform=axes.transAxes,
            ha="center", va="center",
        )  # fmt: skip
        return
    low, high = scale.limits or panel.limits
    n_steps = panel.values.shape[1]
    step = block.attribution.frames_per_step * SECONDS_PER_FRAME
    # Where a step is less than this many dots wide, matplotlib smooths to the next steps, and would
    # smooth to the next rows as well if they were not of several equal ones.
    narrow = cell.width / n_steps * DOTS_PER_INCH < SMOOTHED_BELOW
    repeats = math.ceil(block.row * DOTS_PER_INCH / 2) if narrow else 1
    image = axes.imshow(
        np.repeat(panel.values, repeats, axis=0),
        cmap=MAP_COLOURS,
        vmin=low,
        vmax=high,
        aspect="auto",
        interpolation="antialiased",
        extent=(0, n_steps * step, n_tokens - 0.5, -0.5),
    )
    axes.set_xlim(0, scale.seconds)
    # The last step may cover fewer frames than the others: the utterance ends before the step.
    from matplotlib.patches import Rectangle

    end = Rectangle((0, -0.5), block.seconds, n_tokens, transform=axes.transData)
    image.set_clip_path(end)


def _label_rows(axes: Axes, cell: _Cell) -> None:
    """Write the tokens left of their rows, all on the same height of line.

    Labels of ticks would be centred each for itself, and ``_`` stand lower than ``a``.
    """
    size = cell.block.letters
    for row, label in enumerate(cell.block.labels):
        axes.annotate(
            shortened(label, cell.label_width - LABEL_GAP, size),
            (0, row),
            (-0.75 * LABEL_GAP * 72, -HALF_LETTER * size),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            ha="right",
            va="baseline",
            size=size,
            annotation_clip=False,
        )


def _beyond(panels: list[Panel], scale: _Scale) -> str:
    """Tell at which ends of the colours values lie beyond, as colour bars call it."""
    below = above = False
    for panel in panels:
        if panel.values is not None:
            low, high = scale.limits or panel.limits
            below |= bool(panel.values.min() < low)
            above |= bool(panel.values.max() > high)
    return {(False, False): "neither", (True, False): "min", (False, True): "max"}.get(
        (below, above), "both"
    )
