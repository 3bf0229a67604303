"""Characters: which fonts have them, and which must not be written at all."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from functools import cache

FONT = "DejaVu Sans"  # comes with matplotlib, so figures are the same on every machine
LAST_RESORT = "Last Resort"  # has a box for every character
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
# These would turn around what stands beside them, and no token ends their effect.
REORDERING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def printable(text: str) -> str:
    """Return a text as one line that can be drawn and written into an SVG.

    White space becomes single spaces. Control characters, surrogates, and what reverses the
    direction of the text around it become the replacement character.
    """
    line = " ".join(text.split())
    return "".join(REPLACEMENT if _is_control(sign) else sign for sign in line)


def fallback_fonts(texts: Iterable[str]) -> list[str]:
    """Return installed fonts for the characters that :data:`FONT` lacks, as few as it takes."""
    missing = _drawn(texts) - _characters(_file(FONT))
    families: list[str] = []
    if not missing:
        return families
    for family, file in _regular_fonts():
        found = missing & _characters(file)
        if found:
            families.append(family)
            missing -= found
        if not missing:
            break
    return families


def without_glyph(texts: Iterable[str]) -> list[str]:
    """Return the characters that no installed font has, sorted: a box is drawn for each."""
    drawn = _drawn(texts)
    missing = drawn - _characters(_file(FONT))
    if missing:
        for _, file in _regular_fonts():
            missing -= _characters(file)
    return sorted(missing)


def _drawn(texts: Iterable[str]) -> set[str]:
    """Return the characters that leave a mark; format characters and spaces do not."""
    return {sign for sign in set().union(*texts) if unicodedata.category(sign) not in ("Cf", "Zs")}


def _is_control(sign: str) -> bool:
    return sign in REORDERING or unicodedata.category(sign) in ("Cc", "Cs", "Cn")


def _file(family: str) -> str:
    from matplotlib.font_manager import FontProperties, findfont

    return str(findfont(FontProperties(family=family)))


@cache
def _characters(file: str) -> frozenset[str]:
    from matplotlib.font_manager import get_font

    try:
        return frozenset(map(chr, get_font(file).get_charmap()))
    except (OSError, RuntimeError):  # damaged, or of a kind that FreeType does not know
        return frozenset()


@cache
def _regular_fonts() -> tuple[tuple[str, str], ...]:
    """Return families and files of upright fonts of normal weight, in alphabetical order."""
    from matplotlib.font_manager import fontManager

    return tuple(
        sorted(
            {
                (entry.name, entry.fname)
                for entry in fontManager.ttflist
                if entry.style == "normal"
                and entry.weight in (400, "normal", "regular")
                and not entry.name.startswith((LAST_RESORT, "cm"))
            }
        )
    )
