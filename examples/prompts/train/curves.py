"""Draws learning curves of models that ``train.sh`` trains, and writes their numbers beside them.

    python -m examples.prompts.train.curves OUTPUT.png NAME=SAVE_DIR [NAME=SAVE_DIR ...]

SAVE_DIR has ``asr.log`` and ``model.log``, or the first alone while there is no other. A log may
hold several runs of its stage, one after the other. The numbers are in ``OUTPUT.tsv``.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from examples.prompts.train.logs import (
    OWN,
    PARTS,
    STAGES,
    TRAINING,
    TRANSCRIPTS,
    Training,
    read_training,
    subsets,
    table,
)
from fbk_xattn.errors import InputError
from fbk_xattn.files import write_text
from fbk_xattn.report.figures import WIDTHS, save_figure
from fbk_xattn.report.figures.fonts import printable
from fbk_xattn.report.figures.sheet import Sheet
from fbk_xattn.report.figures.style import FRAME, LINE_COLOURS, MARGIN, SMALL, drawing, lines_height
from fbk_xattn.report.figures.text import shortened
from fbk_xattn.report.figures.tiles import Frame, Tile, inner_width, per_row, place

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LEAST_WIDTH, AROUND = 1.2, Frame(left=0.3, below=0.33, height=1.3, right=0.06)  # inches
TICK, HANDLE, LEGEND_COLUMNS = 0.4, 0.6, 4
VALIDATED = "nll_loss"
DASHED = "--"
ROUND = (1.0, 2.0, 5.0, 10.0)


def draw(trainings: Mapping[str, Training]) -> Figure:
    """Draw a panel for each part of the training loss and for each validation subset.

    Each training has its colour, and its second stage follows the first.

    Args:
        trainings: By name, not more than there are colours.
    """
    logs = [log for training in trainings.values() for log in training.values()]
    validated = subsets(logs)
    rows = [
        [(f"Training: {label}", TRAINING, part) for part, label in PARTS.items()],
        [(f"Validation: {PARTS[VALIDATED]}, {name}", name, VALIDATED) for name in validated],
    ]
    entries: list[tuple[str, dict[str, Any]]] = [
        (printable(name), {"color": colour})
        for name, colour in zip(trainings, LINE_COLOURS, strict=False)
    ]
    transcripts = VALIDATED + TRANSCRIPTS
    if any(transcripts in log[key] for log in logs for key in log if key[0] == TRAINING):
        entries.append(("target texts", {"color": "black"}))
        entries.append(("transcripts in their place", {"color": "black", "linestyle": DASHED}))
    if any(len(training) > 1 for training in trainings.values()):
        entries.append(("second stage begins", {"color": FRAME, "linestyle": ":"}))
    width, top = WIDTHS["page"], MARGIN
    with drawing((*trainings, *validated)):
        sheet = Sheet(width)
        for row in filter(None, rows):
            columns = per_row(len(row), width, LEAST_WIDTH)
            inner = inner_width(width, columns, AROUND)
            tiles = [Tile(title) for title, _, _ in row]
            axes, top = place(sheet, tiles, columns, AROUND, top)
            for number, (one, (_, subset, part)) in enumerate(zip(axes, row, strict=True)):
                _draw(one, trainings, subset, part, inner)
                one.set_ylabel("" if number % columns else "bits a token")
        height = lines_height(math.ceil(len(entries) / LEGEND_COLUMNS), SMALL)
        _legend(sheet.axes(MARGIN, top, width - 2 * MARGIN, height), entries, width)
        return sheet.finish(top + height + MARGIN)


def _draw(
    axes: Axes, trainings: Mapping[str, Training], subset: str, part: str, width: float
) -> None:
    """Draw the lines of a panel ``width`` inches wide."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

    styles = {part + kind: "-" for kind in OWN}
    if subset == TRAINING:  # the texts of a validation subset say by themselves what it is of
        styles[part + TRANSCRIPTS] = DASHED
    drawn: list[float] = []
    end = 1
    for training, colour in zip(trainings.values(), LINE_COLOURS, strict=False):
        begin = 0
        for stage in filter(training.__contains__, STAGES):
            log = training[stage]
            if begin:
                axes.axvline(begin, color=colour, linestyle=":", linewidth=0.8)
            for name, style in styles.items():
                points = [
                    (begin + update, values[name])
                    for (where, update), values in log.items()
                    if where == subset and name in values
                ]
                drawn += [value for _, value in points if 0 < value < math.inf]
                lone = "o" if len(points) == 1 else ""
                updates, losses = zip(*points, strict=True) if points else ((), ())
                axes.plot(updates, losses, color=colour, linestyle=style, marker=lone, markersize=2)
            begin += max(update for _, update in log)
        end = max(end, begin)
    axes.set_xlim(0, end)
    axes.set_yscale("log")
    axes.set_ylim(_limit(min(drawn, default=1.0), -1), _limit(max(drawn, default=10.0), 1))
    axes.xaxis.set_major_locator(MaxNLocator(max(int(width / TICK), 1), steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.yaxis.set_major_locator(LogLocator(subs=ROUND[:-1]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("updates")
    axes.grid(color="0.9", linewidth=0.4)
    axes.set_axisbelow(True)


def _limit(value: float, direction: int) -> float:
    """Return the next round number below (-1) or above (1) a positive value."""
    power = 10.0 ** math.floor(math.log10(value))
    if direction < 0:
        return max(number * power for number in (0.5, *ROUND) if number * power < value)
    return min(number * power for number in (*ROUND, 20.0) if number * power > value)


def _legend(axes: Axes, entries: Sequence[tuple[str, dict[str, Any]]], width: float) -> None:
    from matplotlib.lines import Line2D

    axes.set_axis_off()
    room = width / LEGEND_COLUMNS - HANDLE
    axes.legend(
        [Line2D([], [], **style) for _, style in entries],
        [shortened(text, room, SMALL) for text, _ in entries],
        ncols=LEGEND_COLUMNS,
        loc="upper left",
        borderaxespad=0,
        borderpad=0,
        labelspacing=0.2,
        handlelength=2.6,
    )


def named_folders(texts: Sequence[str]) -> dict[str, Path]:
    """Split ``NAME=SAVE_DIR``.

    Raises:
        InputError: One is no such text, a name is there twice, or there are too many.
    """
    folders: dict[str, Path] = {}
    for text in texts:
        name, _, folder = text.partition("=")
        if not (name.isprintable() and name.strip() and folder):
            raise InputError(f"{text}: expected NAME=SAVE_DIR")
        if name in folders:
            raise InputError(f"{text}: a second training named {name}, expected another name")
        folders[name] = Path(folder)
    if len(folders) > len(LINE_COLOURS):
        raise InputError(f"{len(folders)} trainings, expected at most {len(LINE_COLOURS)}")
    return folders


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw the curves."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("output", type=Path, metavar="OUTPUT.png", help="or .pdf, .svg")
    parser.add_argument("trainings", nargs="+", metavar="NAME=SAVE_DIR")
    args = parser.parse_args(arguments)
    try:
        folders = named_folders(args.trainings)
        trainings = {name: read_training(folder) for name, folder in folders.items()}
        save_figure(draw(trainings), args.output)
        write_text(args.output.with_suffix(".tsv"), table(trainings))
    except InputError as error:
        raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
    main()
