"""Curves of deletion and insertion, in panels as the page and the figure draw them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath

from fbk_xattn.analysis.deletion import ScoredCurve
from fbk_xattn.analysis.table import task_name
from fbk_xattn.errors import InputError
from fbk_xattn.store.curves import INSERTION

SCORES = {"wer": "WER (%)", "wer_max": "WER, cut at 100 (%)", "bleu": "BLEU"}
Named = tuple[str, ScoredCurve]


@dataclass(frozen=True)
class PanelLine:
    """One curve of a panel.

    Attributes:
        name: The map that ranked the units, with its folder where maps do not tell curves apart.
        look: Number of its colour and dashes, from 0: the same for the same name in all panels.
        curve: The curve.
    """

    name: str
    look: int
    curve: ScoredCurve


@dataclass(frozen=True)
class CurvePanel:
    """Curves of one mode, task and score, on the same axes.

    Attributes:
        title: Mode and task.
        x_label: What is on the horizontal axis, from 0 to 100.
        y_label: The score, with its unit.
        lines: The curves.
    """

    title: str
    x_label: str
    y_label: str
    lines: tuple[PanelLine, ...]

    @property
    def first(self) -> ScoredCurve:
        """One of the curves, for what they have in common."""
        return self.lines[0].curve


def curve_panels(curves: Sequence[Named]) -> list[CurvePanel]:
    """Group curves, those of one mode, task and score on the same axes.

    Args:
        curves: With the name of their folder, as
            :func:`~fbk_xattn.analysis.deletion.evaluate` returns them.

    Raises:
        InputError: No curve.
    """
    if not curves:
        raise InputError("no curve to draw, expected at least one")
    groups: dict[tuple[str, tuple[str, str] | None, str], list[Named]] = {}
    for name, curve in curves:
        groups.setdefault((curve.mode, curve.languages, curve.score), []).append((name, curve))
    looks: dict[str, int] = {}
    panels = []
    for (mode, languages, score), members in groups.items():
        lines = tuple(
            PanelLine(name, looks.setdefault(name, len(looks)), curve)
            for name, (_, curve) in zip(_line_names(members), members, strict=True)
        )
        task = "all tasks" if languages is None else task_name(*languages)
        panels.append(
            CurvePanel(
                title=f"{mode.capitalize()}, {task}",
                x_label=f"units {'kept' if mode == INSERTION else 'removed'} (%)",
                y_label=SCORES.get(score, score),
                lines=lines,
            )
        )
    return panels


def _line_names(members: Sequence[Named]) -> list[str]:
    maps = [curve.map_name for _, curve in members]
    folders = [PurePath(name).name for name, _ in members]
    if len(set(zip(maps, folders, strict=True))) < len(members):
        folders = [name for name, _ in members]
    return [
        name if maps.count(name) == 1 else f"{name} ({folder})"
        for name, folder in zip(maps, folders, strict=True)
    ]
