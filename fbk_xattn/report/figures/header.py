"""What stands above the maps of an utterance: its id, languages, reference and hypothesis."""

from __future__ import annotations

from fbk_xattn.report.figures.fonts import printable
from fbk_xattn.report.figures.sheet import Sheet
from fbk_xattn.report.figures.style import BODY, FAINT, SMALL, TITLE, lines_height
from fbk_xattn.report.figures.text import shortened, text_width, wrapped
from fbk_xattn.store import Attribution

FIELDS = ("Reference", "Hypothesis")
FIELD_GAP, BELOW = 0.08, 0.07  # inches
Line = tuple[str, str]


def header_texts(attribution: Attribution) -> list[str]:
    """Return all that the header of an utterance may write."""
    return [
        _title(attribution),
        *(text for _, text in _fields(attribution)),
    ]


def header_lines(attribution: Attribution, room: float) -> list[Line]:
    """Return the lines below the title, each with the name of its field or an empty one.

    Args:
        attribution: The utterance.
        room: Width in inches.
    """
    lines: list[Line] = []
    for name, text in _fields(attribution):
        first, *others = wrapped(text, max(room - _field_width(), 0.5), BODY)
        lines += [(name, first), *(("", line) for line in others)]
    return lines


def write_header(
    sheet: Sheet,
    attribution: Attribution,
    left: float,
    top: float,
    room: float,
    n_lines: int | None = None,
) -> float:
    """Write the header of an utterance.

    Args:
        sheet: Where to.
        attribution: The utterance.
        left: In inches.
        top: In inches from the upper edge.
        room: Its width in inches.
        n_lines: How many lines below the title to leave room for; its own by default.

    Returns:
        Where it ends, in inches from the upper edge.
    """
    title = shortened(_title(attribution), room, TITLE, bold=True)
    top = sheet.text(left, top, [title], size=TITLE, weight="bold")
    lines = header_lines(attribution, room)
    for number, (name, line) in enumerate(lines):
        start = top + lines_height(number, BODY)
        sheet.text(left, start + 0.01, [name], size=SMALL, color=FAINT)
        sheet.text(left + _field_width(), start, [line])
    return top + lines_height(n_lines or len(lines), BODY) + BELOW


def _title(attribution: Attribution) -> str:
    languages = f"{attribution.src_lang} → {attribution.tgt_lang}"
    return printable(f"{attribution.id}   ({languages})")


def _fields(attribution: Attribution) -> list[Line]:
    texts = (attribution.tgt_text, attribution.hypothesis)
    return [(name, printable(text) or "(empty)") for name, text in zip(FIELDS, texts, strict=True)]


def _field_width() -> float:
    return max(text_width(name, SMALL) for name in FIELDS) + FIELD_GAP
