"""Text that is fitted to the room it has, by the width of its letters."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from fbk_xattn.analysis.words import WORD_START, word_slices, word_text
from fbk_xattn.report.figures.fonts import printable

# Before a space, and after a hyphen between words (not that of 2d-max).
BREAKS = re.compile(r"(?= )|(?<=\w{4}-)(?=\w)")
ELLIPSIS = "…"
MEASURED_AT = 720  # dots per inch, so that rounding to dots does not matter


def text_width(text: str, size: float, *, bold: bool = False) -> float:
    """Return the width of one line in inches, in the fonts of the settings.

    Args:
        text: Without line breaks.
        size: Of the letters, in points.
        bold: Whether they are bold.
    """
    import matplotlib as mpl

    return _measured(text, size, bold, tuple(mpl.rcParams["font.family"]))


def shortened(text: str, inches: float, size: float, *, bold: bool = False) -> str:
    """Return a line cut, with an ellipsis, to what fits into ``inches``."""
    if text_width(text, size, bold=bold) <= inches:
        return text
    low, high = 0, len(text) - 1  # of the letters that are kept
    while low < high:
        middle = (low + high + 1) // 2
        if text_width(text[:middle] + ELLIPSIS, size, bold=bold) <= inches:
            low = middle
        else:
            high = middle - 1
    return text[:low] + ELLIPSIS


def wrapped(text: str, inches: float, size: float, *, bold: bool = False) -> list[str]:
    """Break a text into lines that fit into ``inches``.

    Lines end at spaces and after hyphens, and within words that are too long for a line.
    """
    lines: list[str] = []
    line = ""
    for part in BREAKS.split(text):
        longer = (line + part) if line else part.lstrip(" ")
        word = part.lstrip(" ")
        if text_width(longer, size, bold=bold) <= inches:
            line = longer
            continue
        lines += [line] if line else []
        *full, line = _pieces(word, inches, size, bold=bold)
        lines += full
    return [*lines, line]


def row_labels(tokens: Sequence[str], *, words: bool = False) -> list[str]:
    """Return the labels of the rows of a map.

    Args:
        tokens: The content tokens.
        words: Whether rows are words, written without SentencePiece's mark; in tokens it is ``_``.
    """
    names = [word_text(tokens, word) for word in word_slices(tokens)] if words else tokens
    return [printable(name.replace(WORD_START, "_")) or "_" for name in names]


def _pieces(word: str, inches: float, size: float, *, bold: bool) -> list[str]:
    pieces = [""]
    for sign in word:
        if pieces[-1] and text_width(pieces[-1] + sign, size, bold=bold) > inches:
            pieces.append("")
        pieces[-1] += sign
    return pieces


@lru_cache(maxsize=4096)
def _measured(text: str, size: float, bold: bool, families: tuple[str, ...]) -> float:
    from matplotlib.backends.backend_agg import RendererAgg
    from matplotlib.font_manager import FontProperties

    if not text:
        return 0.0
    weight = "bold" if bold else "normal"
    properties = FontProperties(family=list(families), size=size, weight=weight)
    width, _, _ = RendererAgg(1, 1, MEASURED_AT).get_text_width_height_descent(
        text, properties, False
    )
    return float(width) / MEASURED_AT
