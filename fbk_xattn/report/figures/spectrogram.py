"""Input saliency in full resolution over the spectrogram (paper, Figure 3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fbk_xattn.analysis.maps import input_cells
from fbk_xattn.analysis.normalization import mean_std
from fbk_xattn.analysis.words import join_rows, word_slices
from fbk_xattn.errors import InputError
from fbk_xattn.report.figures.axes import colour_bar, mark_time
from fbk_xattn.report.figures.header import header_texts, write_header
from fbk_xattn.report.figures.mel import bin_position
from fbk_xattn.report.figures.sheet import Sheet
from fbk_xattn.report.figures.style import (
    BODY,
    FAINT,
    MARGIN,
    RIGHT_MARGIN,
    SECONDS_PER_FRAME,
    SMALL,
    WIDTHS,
    drawing,
    lines_height,
)
from fbk_xattn.report.figures.text import row_labels, shortened, text_width, wrapped
from fbk_xattn.store import Attribution

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import ListedColormap
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

# Inches.
ROW, LOWEST_ROW = 0.5, 0.36
TALLEST = 8.4  # of a column of rows, before rows become lower, and then columns two
TWO_COLUMNS = 5.5  # the least width of a figure that has room for them
GAP, COLUMN_GAP = 0.05, 0.15
LABEL_SHARE = 0.2
TIME_AXIS = 0.27
BAR, BAR_TICKS = 0.06, 0.17
HERTZ_GAP = 0.08

HERTZ = (1000, 4000, 200, 2000)  # on the axis, as many as have room, first come first served
HERTZ_HEIGHT = 0.09
SPECTROGRAM = "spectrogram"
HIGHEST_PERCENTILE = 99.8  # of the saliency: the cells above have the last colour
FEATURE_PERCENTILES = (1.0, 99.0)
LIGHT = 0.55  # darkness of the spectrogram below a map
SCALE = "saliency of each {row}: standard deviations above its mean"


def draw_spectrogram(
    attribution: Attribution,
    *,
    width: float = WIDTHS["page"],
    rows: Sequence[int] | None = None,
    words: str | None = None,
    header: bool = True,
) -> Figure:
    """Draw the saliency of each token in colour over the spectrogram in grey, a row a token.

    Frequency is in Hz on the mel scale of the features, time in seconds. The map of each token is
    standardised over all its cells (mean 0, deviation 1); colours begin at the mean and are the
    same in all rows. The spectrogram alone is on top.

    Args:
        attribution: An utterance with input saliency.
        width: Of the figure in inches, see :data:`WIDTHS`.
        rows: The tokens (or words) to draw, from 0, the language tag not counted; all by default.
        words: ``mean`` or ``max``, how the maps of tokens are joined to those of words; tokens by
            default.
        header: Whether to write id, languages, reference and hypothesis.

    Returns:
        A figure that pyplot knows nothing of.

    Raises:
        InputError: The utterance has no content token, no input saliency, or no such row; its
            shapes disagree; or no such width or joining.
    """
    tokens = attribution.tokens[attribution.content]
    everything = row_labels(tokens, words=words is not None)
    chosen = _chosen(attribution, len(everything), rows, "token" if words is None else "word")
    labels = [everything[row] for row in chosen]
    cells = input_cells(attribution)
    if words is not None:
        cells = join_rows(cells, word_slices(tokens), words)
    maps = [mean_std(cells[row : row + 1])[0].astype(np.float32) for row in chosen]
    # Above 0 even where all maps are constant.
    highest = max(float(np.percentile(np.stack(maps), HIGHEST_PERCENTILE)), 1e-6)
    row_name = "token" if words is None else f"word ({words} of its tokens)"
    with drawing([*labels, *header_texts(attribution)]):
        sheet = Sheet(width)
        top = MARGIN
        if header:
            top = write_header(sheet, attribution, MARGIN, top, width - 2 * MARGIN)
        layout = _layout(labels, width)
        top += lines_height(1, SMALL)  # the unit above the axis
        ends = []
        for number in range(layout.columns):
            left = MARGIN + number * (layout.column + COLUMN_GAP)
            own = slice(number * layout.rows, (number + 1) * layout.rows)
            column = _Column(sheet, layout, attribution, left)
            ends.append(column.draw(top, labels[own], maps[own], highest))
        top = max(end for end, _ in ends) + TIME_AXIS
        left = MARGIN + layout.axis
        lines = wrapped(SCALE.format(row=row_name), width - MARGIN - left, SMALL)
        top = sheet.text(left, top, lines, size=SMALL, color=FAINT) + 0.02
        bar = sheet.axes(left, top, min(0.5 * width, width - MARGIN - left), BAR)
        beyond = any(bool(values.max() > highest) for values in maps)
        colour_bar(bar, ends[0][1], "max" if beyond else "neither")
        return sheet.finish(top + BAR + BAR_TICKS + MARGIN)


@dataclass(frozen=True)
class _Layout:
    """Sizes in inches.

    Attributes:
        columns: Number of columns.
        rows: Number of rows of a column, but for the spectrogram alone.
        column: Width of a column.
        row: Height of a row.
        label: Width of the labels.
        axis: Where the axes begin within a column, after labels and frequencies.
    """

    columns: int
    rows: int
    column: float
    row: float
    label: float
    axis: float


def _layout(labels: Sequence[str], width: float) -> _Layout:
    """Return the sizes for these rows: two columns where one would be higher than a page."""
    high = (len(labels) + 1) * LOWEST_ROW > TALLEST
    columns = 2 if high and width >= TWO_COLUMNS else 1
    rows = -(-len(labels) // columns)
    column = (width - MARGIN - RIGHT_MARGIN - (columns - 1) * COLUMN_GAP) / columns
    label = max(
        text_width(SPECTROGRAM, SMALL),
        min(max(text_width(label, BODY) for label in labels), LABEL_SHARE * column),
    )
    axis = label + text_width(str(max(HERTZ)), SMALL) + HERTZ_GAP
    row = max(LOWEST_ROW, min(ROW, TALLEST / (rows + 1)))
    return _Layout(columns, rows, column, row, label, axis)


@dataclass(frozen=True)
class _Column:
    """A column of rows of one time axis, the spectrogram alone on top."""

    sheet: Sheet
    layout: _Layout
    attribution: Attribution
    left: float

    def draw(
        self,
        top: float,
        labels: Sequence[str],
        maps: Sequence[NDArray[np.float32]],
        highest: float,
    ) -> tuple[float, AxesImage]:
        """Draw the rows below ``top``; return where they end, and the last map."""
        axes = self._row(top, SPECTROGRAM, last=False, color=FAINT, size=SMALL)
        _spectrogram(axes, self.attribution.fbank, 1.0)
        axes.text(0, 1.06, "Hz ", size=SMALL, ha="right", transform=axes.transAxes)
        for number, (label, values) in enumerate(zip(labels, maps, strict=True), start=1):
            top += self.layout.row + GAP
            axes = self._row(top, label, last=number == len(maps), size=BODY)
            _spectrogram(axes, self.attribution.fbank, LIGHT)
            image = _overlay(axes, values, highest)
        return top + self.layout.row, image

    def _row(self, top: float, label: str, *, last: bool, **style: Any) -> Axes:
        """Add the axes of a row, and write its label."""
        layout = self.layout
        width = layout.column - layout.axis
        axes = self.sheet.axes(self.left + layout.axis, top, width, layout.row)
        _mark(axes, self.attribution, width, layout.row, last=last)
        axes.annotate(
            shortened(label, layout.label, style["size"]),
            (0, 0.5),
            (72 * (layout.label - layout.axis), 0),
            xycoords="axes fraction",
            textcoords="offset points",
            ha="right",
            va="center",
            **style,
        )
        return axes


def _chosen(
    attribution: Attribution, n_rows: int, rows: Sequence[int] | None, name: str
) -> list[int]:
    if n_rows == 0:
        raise InputError(
            f"utterance {attribution.id!r}: nothing to plot, expected a token besides language tag "
            "and eos"
        )
    if rows is None:
        return list(range(n_rows))
    if not rows:
        raise InputError(f"no {name} chosen, expected at least one")
    for row in rows:
        if not 0 <= row < n_rows:
            raise InputError(
                f"{name} {row + 1}: expected 1 to {n_rows}, as many as utterance "
                f"{attribution.id!r} has"
            )
    return list(rows)


def _spectrogram(axes: Axes, fbank: NDArray[np.float32], darkness: float) -> None:
    """Draw the features in grey, the loudest cells of this darkness, from 0 to 1."""
    finite = fbank[np.isfinite(fbank)]
    low, high = np.percentile(finite, FEATURE_PERCENTILES) if finite.size else (0.0, 1.0)
    span = max(float(high - low), 1e-6)
    grey = np.clip((fbank.T - low) / span, 0, 1)
    axes.imshow(
        grey * darkness,
        cmap="Greys",
        vmin=0,
        vmax=1,
        aspect="auto",
        origin="lower",
        interpolation="antialiased",
        extent=_extent(fbank.shape),
    )


def _overlay(axes: Axes, values: NDArray[np.float32], highest: float) -> AxesImage:
    """Draw a map ``(T, F)`` in colours that begin transparent."""
    return axes.imshow(
        values.T,
        cmap=_colours(),
        vmin=0,
        vmax=highest,
        aspect="auto",
        origin="lower",
        interpolation="antialiased",
        extent=_extent(values.shape),
    )


def _colours() -> ListedColormap:
    """Return colours from nothing at the mean to opaque."""
    import matplotlib as mpl
    from matplotlib.colors import ListedColormap

    share = np.linspace(0, 1, 256)
    colours = mpl.colormaps["inferno_r"](0.12 + 0.68 * share)
    colours[:, 3] = np.minimum(1.0, 1.4 * share)
    return ListedColormap(colours, "saliency")


def _extent(shape: tuple[int, ...]) -> tuple[float, float, float, float]:
    return 0, shape[0] * SECONDS_PER_FRAME, -0.5, shape[1] - 0.5


def _mark(axes: Axes, attribution: Attribution, width: float, height: float, *, last: bool) -> None:
    """Set up time in seconds and frequency in Hz of axes of this size in inches."""
    n_frames, n_bins = attribution.fbank.shape
    mark_time(axes, n_frames * SECONDS_PER_FRAME, width)
    if last:
        axes.set_xlabel("time (s)")
    else:
        axes.tick_params(axis="x", bottom=False, labelbottom=False)
    shown = _frequencies(n_bins, height)
    axes.set_yticks(bin_position(shown, n_bins), [str(hertz) for hertz in shown])
    axes.set_ylim(-0.5, n_bins - 0.5)


def _frequencies(n_bins: int, height: float) -> list[int]:
    """Return the frequencies that have room on an axis of this height."""
    shown: list[int] = []
    places: list[float] = []
    for hertz in HERTZ:
        place = float(bin_position(hertz, n_bins) + 0.5) / n_bins * height
        if all(abs(place - other) >= HERTZ_HEIGHT for other in places):
            shown.append(hertz)
            places.append(place)
    return shown
