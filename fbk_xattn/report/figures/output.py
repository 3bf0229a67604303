"""Figures written to files: the same figure gives the same bytes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from fbk_xattn.errors import InputError
from fbk_xattn.files import whole_file
from fbk_xattn.report.figures.fonts import without_glyph
from fbk_xattn.report.figures.style import drawing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DOTS_PER_INCH = 300
MOST_DOTS = 60_000  # in each direction of a PNG: matplotlib draws less than 2 ** 16
# Without dates; what PNG says of its maker would change with the version of matplotlib.
METADATA: dict[str, dict[str, Any]] = {
    ".png": {"Software": None},
    ".svg": {"Date": None},
    ".pdf": {"CreationDate": None},
}
SUFFIXES = tuple(METADATA)


def save_figure(figure: Figure, output: Path | str) -> list[str]:
    """Write a figure, all of it or nothing; text stays text in SVG and PDF.

    Args:
        figure: Of one of the functions of this package.
        output: File to write; its suffix, one of :data:`SUFFIXES`, says the format.

    Returns:
        The characters that no installed font has: a box was drawn for each.

    Raises:
        InputError: Another suffix, a figure too large for PNG, or a place that cannot be written.
    """
    from matplotlib.text import Text

    output = Path(output)
    suffix = output.suffix.lower()
    if suffix not in METADATA:
        raise InputError(f"{output}: expected a file name ending in {', '.join(SUFFIXES)}")
    longest = DOTS_PER_INCH * max(figure.get_size_inches())
    if suffix == ".png" and longest > MOST_DOTS:
        raise InputError(
            f"{output}: a figure of {longest / DOTS_PER_INCH:.0f} in is too large for PNG, "
            "expected fewer rows or the name of a PDF or SVG"
        )
    with whole_file(output) as temporary, drawing():
        figure.savefig(temporary, format=suffix[1:], dpi=DOTS_PER_INCH, metadata=METADATA[suffix])
    return without_glyph(text.get_text() for text in figure.findobj(Text))
