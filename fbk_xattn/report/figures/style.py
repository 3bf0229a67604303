"""What all figures share: sizes for a paper, fonts, colours, and settings that no user changes."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from fbk_xattn.errors import InputError
from fbk_xattn.report.figures.fonts import FONT, fallback_fonts

# Inches: a column and the whole width of a page of two columns, as in ACL's and ISCA's styles.
WIDTHS = {"column": 3.3, "page": 6.9}
NARROWEST, WIDEST = 2.0, 40.0

# Points. Nothing is smaller than SMALL, which papers ask of figures.
SMALL, BODY, TITLE = 6.0, 7.0, 8.0
LINE = 1.35  # height of a line, as a share of the size of its letters
MARGIN = 0.06  # inches
RIGHT_MARGIN = 0.13  # of panels with time: half of a number is beyond the end of its axis

MAP_COLOURS = "magma"  # perceptually uniform, and readable when printed in grey
FAINT = "0.4"
FRAME = "0.5"
NOTHING = "0.93"  # where there is no value
# Okabe and Ito 2008, Color Universal Design: told apart by all readers.
LINE_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
LINE_STYLES = ("-", "--", "-.", ":")

SECONDS_PER_FRAME = 0.01

SETTINGS = {
    "axes.edgecolor": FRAME,
    "axes.labelpad": 1.5,
    "axes.labelsize": SMALL,
    "axes.linewidth": 0.5,
    "axes.titlesize": BODY,
    "font.size": BODY,
    "legend.fontsize": SMALL,
    "legend.frameon": False,
    "lines.linewidth": 1.0,
    "pdf.fonttype": 42,  # letters stay letters: TrueType, which publishers ask for
    "svg.fonttype": "none",
    "svg.hashsalt": "fbk_xattn",  # the same names inside a file on every run
    "text.parse_math": False,  # a dollar sign in a token is a dollar sign
    "xtick.color": FRAME,
    "xtick.labelcolor": "black",
    "xtick.labelsize": SMALL,
    "xtick.major.pad": 1.5,
    "xtick.major.size": 2.0,
    "xtick.major.width": 0.5,
    "ytick.color": FRAME,
    "ytick.labelcolor": "black",
    "ytick.labelsize": SMALL,
    "ytick.major.pad": 1.5,
    "ytick.major.size": 2.0,
    "ytick.major.width": 0.5,
}


@contextmanager
def drawing(texts: Iterable[str] = ()) -> Iterator[None]:
    """Draw with these settings and no others, whatever a user's matplotlibrc says.

    Args:
        texts: What will be written, for fonts that have its characters.
    """
    import matplotlib as mpl

    with mpl.rc_context(), warnings.catch_warnings():
        mpl.rcdefaults()
        mpl.rcParams.update(SETTINGS)
        mpl.rcParams["font.family"] = [FONT, *fallback_fonts(texts)]
        # save_figure returns the characters that no font has.
        warnings.filterwarnings("ignore", message=r"Glyph \d+ ")
        yield


def check_width(inches: float) -> float:
    """Return a width that figures can have.

    Raises:
        InputError: It is less than :data:`NARROWEST` or more than :data:`WIDEST`.
    """
    if not NARROWEST <= inches <= WIDEST:
        raise InputError(
            f"width {inches:g} in: expected {NARROWEST:g} to {WIDEST:g} in, or one of "
            f"{', '.join(f'{name} ({size} in)' for name, size in WIDTHS.items())}"
        )
    return inches


def lines_height(n_lines: int, size: float) -> float:
    """Return the height of lines of text in inches, of letters of ``size`` points."""
    return n_lines * size * LINE / 72
