"""``fbk-xattn plot``: figures of utterances and of what the analysis finds."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from fbk_xattn.analysis import AGGREGATIONS, COEFFICIENTS, STANDARDISED, TARGETS
from fbk_xattn.analysis.text_scores import TEXT_SCORES
from fbk_xattn.analysis.words import JOININGS
from fbk_xattn.cli.plot_corpora import plot_deletion, plot_layers, plot_tokens
from fbk_xattn.cli.plot_utterances import plot_maps, plot_saliency
from fbk_xattn.cli.results import add_manifest_arg
from fbk_xattn.errors import InputError
from fbk_xattn.report.figures import ARRANGEMENTS, KINDS, SUFFIXES, WIDTHS
from fbk_xattn.report.figures.style import check_width


@dataclass(frozen=True)
class FigureKind:
    """A value of ``--figure``.

    Attributes:
        help: What it shows.
        plot: Draws it, writes the files and prints their names; the exit code.
        flags: Names of the flags that it takes, besides those that all take.
        width: Name in :data:`WIDTHS` of its usual width.
    """

    help: str
    plot: Callable[[argparse.Namespace], int]
    flags: frozenset[str]
    width: str = "page"


UTTERANCES = frozenset({"id", "all", "words", "no_header"})
CORRELATIONS = frozenset({"target", "aggregation", "normalize", "coefficient", "no_header"})
FIGURES: Mapping[str, FigureKind] = {
    "maps": FigureKind(
        "input saliency brought to encoder steps, encoder-output saliency and cross-attention of "
        "utterances (Figures 2, 4)",
        plot_maps,
        UTTERANCES | {"together", "layers", "heads", "aggregation", "same_scale"},
    ),
    "saliency": FigureKind(
        "input saliency of each token over the spectrogram (Figure 3)",
        plot_saliency,
        UTTERANCES | {"rows"},
    ),
    "deletion": FigureKind(
        "curves of deletion and insertion with AUC, of folders as evaluate takes them",
        plot_deletion,
        frozenset({"score", "manifest"}),
        "column",
    ),
    "layers": FigureKind(
        "correlation by layer and head (Table 1) as a heat map",
        plot_layers,
        CORRELATIONS | {"same_scale"},
    ),
    "tokens": FigureKind(
        "distribution of the correlations of single tokens by layer",
        plot_tokens,
        CORRELATIONS | {"kind", "words"},
    ),
}


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``plot``."""
    parser = subparsers.add_parser(
        "plot",
        help="saliency maps, cross-attention, curves and correlations as figures",
        description="Draw figures, sized for a paper, and print the files written. Of utterances: "
        "one figure each, or one of all with --together.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "stores",
        metavar="OUT",
        nargs="+",
        type=Path,
        help="attribution store to read (with --figure deletion: folder of --deletion or "
        "--insertion)",
    )
    parser.add_argument(
        "--figure",
        choices=tuple(FIGURES),
        default="maps",
        help="; ".join(f"{name}: {kind.help}" for name, kind in FIGURES.items())
        + " (default: %(default)s)",
    )
    parser.add_argument(
        "--output",
        metavar="FILE|FOLDER",
        default=".",
        help=f"file ({', '.join(SUFFIXES)}) for one figure, or folder for files named after the "
        "ids with / replaced by _, or after the figure (default: the current folder)",
    )
    parser.add_argument(
        "--format",
        choices=tuple(suffix[1:] for suffix in SUFFIXES),
        help="format of files in a folder (default: png)",
    )
    parser.add_argument(
        "--width",
        metavar="|".join([*WIDTHS, "INCHES"]),
        help="width of the figure: "
        + ", ".join(f"{name} ({inches} in)" for name, inches in WIDTHS.items())
        + ", or a number of inches (default: page; of deletion, column)",
    )
    _add_utterance_args(parser)
    _add_correlation_args(parser)
    parser.add_argument(
        "--score",
        nargs="+",
        choices=tuple(TEXT_SCORES),
        help="for deletion: scores of all utterances together (default: each language pair apart, "
        "with wer_max for ASR and bleu for ST)",
    )
    add_manifest_arg(parser)
    parser.set_defaults(run=run)


def _add_utterance_args(parser: argparse.ArgumentParser) -> None:
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--id", nargs="+", metavar="ID", help="utterances to draw")
    which.add_argument("--all", action="store_true", help="draw every utterance of the stores")
    parser.add_argument(
        "--together",
        nargs="?",
        choices=ARRANGEMENTS,
        const="columns",
        help="for maps: all utterances in one figure with one time axis, such as one decoded for "
        "ASR and for ST; columns: side by side, their maps below each other; rows: below each "
        "other, their maps side by side (default: %(const)s)",
    )
    parser.add_argument(
        "--rows",
        nargs="+",
        type=int,
        metavar="N",
        help="for saliency: tokens (with --words: words) to draw, from 1 (default: all)",
    )
    parser.add_argument(
        "--words",
        choices=JOININGS,
        help="for maps, saliency and tokens: join tokens to words (SentencePiece), their maps "
        "averaged (mean) or the highest value taken (max) before anything else is done with them",
    )
    for name in ("layers", "heads"):
        parser.add_argument(
            f"--{name}",
            nargs="+",
            type=int,
            metavar="N",
            help=f"for maps: {name} that cross-attention is averaged over, from 1 (default: all)",
        )
    parser.add_argument(
        "--same-scale",
        action="store_true",
        help="for maps and layers: the same colours for the same values in all panels",
    )
    parser.add_argument(
        "--no-header",
        action="store_true",
        help="leave out id, texts and descriptions, which the caption of a paper gives",
    )


def _add_correlation_args(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--target",
        nargs="+",
        choices=TARGETS,
        help="for layers and tokens: saliency to correlate with (default: all that the store has)",
    )
    parser.add_argument(
        "--aggregation",
        choices=tuple(AGGREGATIONS),
        help="for maps, layers and tokens: how input saliency is brought to encoder steps "
        "(default: 2d-max)",
    )
    parser.add_argument(
        "--normalize",
        choices=tuple(STANDARDISED),
        help="for layers and tokens: which map is standardised first (default: both)",
    )
    parser.add_argument(
        "--coefficient",
        choices=tuple(COEFFICIENTS),
        help="for layers and tokens: which correlation (default: pearson)",
    )
    parser.add_argument(
        "--kind",
        choices=tuple(KINDS),
        help="for tokens: violins, boxes, or cumulative distributions (default: violin)",
    )


def run(args: argparse.Namespace) -> int:
    """Write the figures and print their names.

    Returns:
        0, or 1 when utterances of ``--all`` could not be drawn; standard error says why.

    Raises:
        InputError: Not a store, an unknown id, layer or head, a flag that the figure does not take,
            or a place that cannot be written.
    """
    kind = FIGURES[args.figure]
    for flag in sorted(frozenset().union(*(other.flags for other in FIGURES.values()))):
        if getattr(args, flag) and flag not in kind.flags:
            takers = [name for name, other in FIGURES.items() if flag in other.flags]
            raise InputError(
                f"--{flag.replace('_', '-')} with --figure {args.figure}: expected --figure "
                + " or ".join(takers)
            )
    if "id" in kind.flags and not (args.id or args.all):
        raise InputError(f"--figure {args.figure} without utterances: expected --id ID or --all")
    args.width = _inches(args.width or kind.width)
    return kind.plot(args)


def _inches(width: str) -> float:
    """Return the inches of ``--width``."""
    if width in WIDTHS:
        return WIDTHS[width]
    try:
        inches = float(width)
    except ValueError:
        raise InputError(
            f"--width {width}: expected {', '.join(WIDTHS)} or a number of inches"
        ) from None
    return check_width(inches)
