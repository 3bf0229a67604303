"""``fbk-xattn correlate``: correlation of cross-attention with saliency."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fbk_xattn.analysis import (
    AGGREGATIONS,
    COEFFICIENTS,
    STANDARDISED,
    TARGETS,
    Bootstrap,
    CorrelationTable,
    Setting,
    TokenTable,
)
from fbk_xattn.analysis.comparison import (
    PROBABILITY,
    check_same_but_probability,
    check_same_data,
    check_same_method,
    explains,
    flag,
    has_parameter,
    parameter,
)
from fbk_xattn.analysis.words import JOININGS
from fbk_xattn.cli.reading import (
    check_aggregation,
    check_words,
    column_names,
    correlated,
    correlated_tokens,
    open_stores,
    what_varies,
)
from fbk_xattn.cli.results import add_result_args, check_output
from fbk_xattn.errors import InputError
from fbk_xattn.report.grid import Grid, render_grids
from fbk_xattn.report.numbers import save_numbers
from fbk_xattn.report.tables import head_grid, layer_grid, probability_grid
from fbk_xattn.report.token_tables import token_grid
from fbk_xattn.store import AttributionStore

DEFAULT_AGGREGATION = "2d-max"
LEAST_RESAMPLES = 100  # the ends of a 95-percent interval of fewer are a few draws


@dataclass(frozen=True)
class Job:
    """What the command line asks for.

    Attributes:
        stores: To read, by name.
        targets: Kinds of saliency.
        all_targets: Whether a store may lack some of them.
        aggregation: For the input.
        normalize: Which maps are standardised.
        coefficient: Which correlation.
        bootstrap: For the intervals.
        vary: Parameters that stores side by side may differ in.
        words: How tokens are joined to words, or not at all.
    """

    stores: Mapping[str, AttributionStore]
    targets: tuple[str, ...]
    all_targets: bool
    aggregation: str
    normalize: str
    coefficient: str
    bootstrap: Bootstrap
    vary: tuple[str, ...]
    words: str | None

    def settings(self, aggregations: Sequence[str] | None = None) -> list[Setting]:
        """Return what to correlate, the input once for each aggregation."""
        return [
            Setting(target, aggregation, self.normalize, self.coefficient)
            for target in self.targets
            for aggregation in (
                aggregations or (self.aggregation,) if target == "input" else (None,)
            )
        ]

    def tables(self, settings: Sequence[Setting]) -> list[tuple[str, CorrelationTable]]:
        """Correlate every store, and account for what its means are without.

        Returns:
            Tables with the name of their store.
        """
        return [
            (name, table)
            for name, store in self.stores.items()
            for table in correlated(
                store, self.label(name), settings, absent_is_error=not self.all_targets
            )
        ]

    def explaining(self, target: str) -> list[AttributionStore]:
        """Return the stores of runs that explained a target."""
        return [store for store in self.stores.values() if explains(store, target)]

    @property
    def several(self) -> bool:
        """Whether stores have to be told apart."""
        return len(self.stores) > 1

    def label(self, name: str) -> str:
        """Return the name of a store for its tables, empty if there is no other."""
        return name if self.several else ""


Result = tuple[list[Grid], list[tuple[str, CorrelationTable | TokenTable]]]


def by_heads(job: Job) -> Result:
    """Layers by heads, a table a store and target (Table 1)."""
    named = job.tables(job.settings())
    return [head_grid(t, job.label(name), job.bootstrap) for name, t in named], [*named]


def by_layers(job: Job) -> Result:
    """Layers of stores and tasks side by side, a table a target (Tables 2 and 3)."""
    for target in job.targets:
        check_same_method(job.explaining(target), target, job.vary)
    named = job.tables(job.settings())
    grids, called = [], column_names(job.stores)
    what = what_varies(job.stores, [(name, task) for name, t in named for task in t.by_task()])
    for target in job.targets:
        columns = {
            called(_with_varied(job, name), task): part
            for name, table in named
            if table.target == target
            for task, part in table.by_task().items()
        }
        if columns:
            grids.append(layer_grid(columns, what, f"layers-{target}", job.bootstrap))
    return grids, [*named]


def by_aggregation(job: Job) -> Result:
    """Layers by aggregation of the input saliency, a table a store (Table 4)."""
    named = job.tables(job.settings([*AGGREGATIONS]))
    grids = []
    for name in job.stores:
        columns = {t.aggregation or "": t for n, t in named if n == name}
        label = "-".join(["aggregation", *([name] if job.several else [])])
        grids.append(layer_grid(columns, "aggregation", label, job.bootstrap, job.label(name)))
    return grids, [*named]


def by_probability(job: Job) -> Result:
    """Layers by occlusion probability, a table a target (Table 6)."""
    for target in job.targets:
        check_same_but_probability(job.explaining(target), target)
    for target in job.targets:
        check_same_data(job.explaining(target))
    named = job.tables(job.settings())
    grids = []
    for target in job.targets:
        tables = {
            parameter(job.stores[name], PROBABILITY[target]): (name, t)
            for name, t in named
            if t.target == target
        }
        if tables:
            grids.append(probability_grid(tables, target, job.bootstrap))
    return grids, [*named]


def by_tokens(job: Job) -> Result:
    """Distribution over tokens, a table a store and target."""
    grids, named = [], []
    for name, store in job.stores.items():
        tables = correlated_tokens(
            store,
            job.label(name),
            job.settings(),
            absent_is_error=not job.all_targets,
            words=job.words,
        )
        for table in tables:
            grids.append(token_grid(table, job.label(name), job.bootstrap))
            named.append((name, table))
    return grids, [*named]


VIEWS: Mapping[str, Callable[[Job], Result]] = {
    "heads": by_heads,
    "layers": by_layers,
    "aggregation": by_aggregation,
    "probability": by_probability,
    "tokens": by_tokens,
}


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``correlate``."""
    parser = subparsers.add_parser(
        "correlate",
        help="correlation of cross-attention with saliency, by layer and head",
        description="Correlate cross-attention with the saliency of the input and of the encoder "
        "output (mean over the utterances, with a bootstrap interval). Language tag and eos are "
        "left out.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "stores", metavar="OUT", type=Path, nargs="+", help="attribution store to read"
    )
    parser.add_argument(
        "--by",
        choices=tuple(VIEWS),
        default="heads",
        help="heads: layers by heads (Table 1); layers: layers of stores and tasks side by side "
        "(Tables 2, 3); aggregation: layers by aggregation function (Table 4); probability: layers "
        "by occlusion probability, of stores that differ in nothing else (Table 6); tokens: "
        "distribution over tokens, by layer, length, position and start of a word "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--target",
        nargs="+",
        choices=TARGETS,
        help="saliency to correlate with (default: all that the store has)",
    )
    parser.add_argument(
        "--aggregation",
        choices=tuple(AGGREGATIONS),
        help=f"how input saliency is brought to encoder steps (default: {DEFAULT_AGGREGATION})",
    )
    parser.add_argument(
        "--normalize",
        choices=tuple(STANDARDISED),
        default="both",
        help="which map is standardised first: cross-attention each encoder step over the tokens, "
        "saliency each token over the steps (default: %(default)s)",
    )
    parser.add_argument(
        "--coefficient",
        choices=tuple(COEFFICIENTS),
        default="pearson",
        help="which correlation (default: %(default)s)",
    )
    parser.add_argument(
        "--words",
        choices=JOININGS,
        help="for --by tokens: join tokens to words (SentencePiece), their maps averaged (mean) or "
        "the highest value taken (max) before they are standardised",
    )
    parser.add_argument(
        "--vary",
        nargs="+",
        metavar="NAME",
        default=[],
        help="flags of fairseq-generate, without dashes, that stores side by side may differ in "
        "(for example cross-attention)",
    )
    parser.add_argument(
        "--resamples",
        type=int,
        metavar="N",
        default=1000,
        help="bootstrap resamples of the utterances, at least "
        f"{LEAST_RESAMPLES} (default: %(default)s)",
    )
    parser.add_argument(
        "--seed", type=int, metavar="N", default=0, help="of the bootstrap (default: %(default)s)"
    )
    add_result_args(parser, "the numbers behind the tables, of every utterance or token,")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the tables; what they are without goes to standard error.

    Raises:
        InputError: Not a store, nothing to correlate in it, no correlation is defined, or stores
            that cannot stand side by side.
    """
    check_output(args.output)
    job = _job(args)
    grids, named = VIEWS[args.by](job)
    if args.output is not None:
        save_numbers(args.output, named, job.bootstrap)
    sys.stdout.write(render_grids(grids, args.format))
    return 0


def _job(args: argparse.Namespace) -> Job:
    """Check what argparse cannot.

    Raises:
        InputError: Flags that do not go together, or a path that is no store.
    """
    targets = tuple(dict.fromkeys(args.target or TARGETS))
    if args.by == "aggregation":
        if args.aggregation is not None:
            raise InputError(
                f"--aggregation {args.aggregation} with --by aggregation: has them all"
            )
        if args.target is not None and targets != ("input",):
            raise InputError("--target encoder with --by aggregation: only the input is aggregated")
        targets = ("input",)
    check_aggregation(args.aggregation, targets)
    if args.vary and args.by != "layers":
        raise InputError(f"--vary with --by {args.by}: expected --by layers")
    if args.words and args.by != "tokens":
        raise InputError(f"--words with --by {args.by}: expected --by tokens")
    if args.by == "probability" and len(args.stores) < 2:
        raise InputError(
            f"{args.stores[0]} alone with --by probability: expected two or more stores"
        )
    if args.resamples < LEAST_RESAMPLES:
        raise InputError(f"--resamples {args.resamples}: expected at least {LEAST_RESAMPLES}")
    bootstrap = Bootstrap(args.resamples, seed=args.seed)
    stores = open_stores(args.stores)
    check_words(stores.values(), args.words)
    for name in args.vary:
        if not any(has_parameter(store, flag(name)) for store in stores.values()):
            raise InputError(
                f"--vary {name}: no store has this parameter, expected a flag of fairseq-generate "
                "such as num-masks"
            )
    if args.by == "probability" and args.target is None:
        targets = _varied_targets(stores)
    return Job(
        stores=stores,
        targets=targets,
        all_targets=args.target is None and args.by != "aggregation",
        aggregation=args.aggregation or DEFAULT_AGGREGATION,
        normalize=args.normalize,
        coefficient=args.coefficient,
        bootstrap=bootstrap,
        vary=tuple(flag(name) for name in args.vary),
        words=args.words,
    )


def _varied_targets(stores: Mapping[str, AttributionStore]) -> tuple[str, ...]:
    """Return the targets whose occlusion probability is not the same in all stores."""
    targets = tuple(
        target
        for target, name in PROBABILITY.items()
        if len({parameter(s, name) for s in stores.values() if explains(s, target)}) > 1
    )
    if not targets:
        raise InputError(
            f"{' and '.join(PROBABILITY.values())}: the same in {', '.join(stores)}, expected "
            "stores that differ in one with --by probability"
        )
    return targets


def _with_varied(job: Job, name: str) -> str:
    values = [f"{n.lstrip('-')} {parameter(job.stores[name], n)}" for n in job.vary]
    return f"{name} ({', '.join(values)})" if values else name
