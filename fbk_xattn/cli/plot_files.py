"""Where figures are written, and what is said of them."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fbk_xattn.cli.results import note
from fbk_xattn.errors import InputError
from fbk_xattn.report.figures import SUFFIXES, save_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAMED_AT_MOST = 5


def figure_files(args: argparse.Namespace, names: Sequence[str]) -> list[Path]:
    """Return the files of figures, each its own.

    Args:
        args: With ``output`` and ``format``.
        names: Of the files in a folder, without suffix, all different.

    Raises:
        InputError: One file for several figures, a file of another format than ``--format``, or a
            suffix that no figure has.
    """
    output, path = args.output, Path(args.output)
    is_folder = path.is_dir() or output.endswith(os.sep)
    if path.suffix.lower() in SUFFIXES and not is_folder:
        if len(names) > 1:
            raise InputError(
                f"--output {output}: one file for {len(names)} utterances, expected a folder, "
                "or --together with --figure maps"
            )
        if args.format and path.suffix.lower() != f".{args.format}":
            raise InputError(f"--output {output} with --format {args.format}: expected the same")
        return [path]
    if path.suffix and not is_folder:
        raise InputError(
            f"--output {output}: expected a name ending in {', '.join(SUFFIXES)}, or a folder "
            f"(a new one with a dot in its name ends in {os.sep})"
        )
    return [path / f"{name}.{args.format or 'png'}" for name in names]


def write_figure(figure: Figure, file: Path) -> None:
    """Write a figure, print its name, and note on standard error what no font has.

    Raises:
        InputError: The place cannot be written.
    """
    missing = save_figure(figure, file)
    print(file, flush=True)
    if missing:
        named = ", ".join(f"{sign} (U+{ord(sign):04X})" for sign in missing[:NAMED_AT_MOST])
        more = len(missing) - NAMED_AT_MOST
        note(
            f"{file}: boxes for {named}{f' and {more} more' if more > 0 else ''}, which no "
            "installed font has"
        )
