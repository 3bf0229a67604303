"""Flags of the tasks that ask for deletion or insertion."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fbk_xattn.analysis.aggregation import AGGREGATIONS
from fbk_xattn.analysis.maps import CROSS_ATTENTION, NAMES, flags_for
from fbk_xattn.analysis.ranking import RANKING_MAPS, Ranking
from fbk_xattn.errors import InputError
from fbk_xattn.store import AttributionStore, CurveStore
from fbk_xattn.store.curves import DELETION, INSERTION

# What makes maps of one run unfit to remove features in another.
SHARED_PARAMETERS = ("checkpoint SHA-256", "feature transforms")


def add_deletion_args(parser: ArgumentParser) -> None:
    """Add the flags; every default is the paper's setting."""
    group = parser.add_argument_group("deletion and insertion (fairseq-generate)")
    add = group.add_argument
    add(
        "--deletion",
        metavar="DIR",
        help="folder to write to what is decoded while the most salient part of each utterance is "
        "removed step by step, in the order of a map of --attribution-dir, which is read only; "
        "utterances that the folder holds are not decoded again",
    )
    add(
        "--insertion",
        metavar="DIR",
        help="the same, while all but the most salient part is removed",
    )
    add(
        "--deletion-map",
        default="input",
        metavar="MAP",
        help="map that says what is most salient, and thereby what is removed: input (cells of the "
        "filterbanks), input-frames (frames, by input saliency aggregated to encoder steps), "
        "cross-attention (frames) or encoder (states of the encoder output), or, to compare with "
        "these, random (cells), random-frames or random-encoder (default: input)",
    )
    add(
        "--deletion-step",
        type=int,
        default=5,
        metavar="PERCENT",
        help="how much more is removed (deletion) or kept (insertion) at each step, in percent of "
        "the cells, frames or states; divides 100 (default: 5, that is 21 steps)",
    )
    add(
        "--deletion-aggregation",
        default="2d-max",
        metavar="HOW",
        help="how input-frames brings saliency to encoder steps: 2d-max, 2d-avg or 1d-max-1d-avg "
        "(default: 2d-max)",
    )
    add(
        "--deletion-layers",
        type=int,
        nargs="+",
        metavar="N",
        help="decoder layers of cross-attention, from 1 (default: the mean of all)",
    )
    add(
        "--deletion-heads",
        type=int,
        nargs="+",
        metavar="N",
        help="heads of each of these layers, from 1 (default: the mean of all)",
    )
    add(
        "--deletion-seed",
        type=int,
        default=0,
        metavar="N",
        help="seed of random, random-frames and random-encoder, 0 or more (default: 0)",
    )


@dataclass(frozen=True)
class DeletionOptions:
    """The flags of :func:`add_deletion_args`, checked.

    Attributes:
        output: Folder to write to.
        attribution_dir: Store of the maps.
        mode: ``"deletion"`` or ``"insertion"``.
        ranking: How units are ranked.
        step: In percent.
    """

    output: Path
    attribution_dir: Path
    mode: str
    ranking: Ranking
    step: int

    @classmethod
    def from_args(cls, args: Namespace) -> DeletionOptions | None:
        """Check the flags; return ``None`` when neither deletion nor insertion is asked for.

        Raises:
            InputError: An unknown map, a value out of range, or flags that contradict each other.
        """
        if args.deletion is None and args.insertion is None:
            return None
        if args.deletion is not None and args.insertion is not None:
            raise InputError("--deletion with --insertion: expected one of them in a run")
        mode = INSERTION if args.deletion is None else DELETION
        if not getattr(args, mode):
            raise InputError(f"--{mode} '': expected a folder to write to")
        if not args.attribution_dir:
            raise InputError(
                f"--{mode} without --attribution-dir: expected the store that has the maps"
            )
        if args.explain or args.save_cross_attention:
            flag = "--explain" if args.explain else "--save-cross-attention"
            raise InputError(
                f"{flag} with --{mode}: expected a run of each, as --{mode} reads what another "
                "run explained"
            )
        output, maps = Path(getattr(args, mode)), Path(args.attribution_dir)
        if output.resolve() == maps.resolve():
            raise InputError(f"--{mode} {output}: is --attribution-dir, expected another folder")
        if not 1 <= args.deletion_step <= 100 or 100 % args.deletion_step:
            raise InputError(
                f"--deletion-step {args.deletion_step}: expected a divisor of 100, in percent"
            )
        return cls(output, maps, mode, _ranking(args), args.deletion_step)

    @property
    def percentages(self) -> NDArray[np.int64]:
        """``(P,)``, 0, the step, ..., 100."""
        return np.arange(0, 101, self.step)

    def stores(
        self, decoding: Mapping[str, Any], provenance: Mapping[str, Any]
    ) -> tuple[AttributionStore, CurveStore]:
        """Open the store of the maps, and the folder to write to.

        Args:
            decoding: Parameters that hypotheses depend on.
            provenance: For the folder's ``meta.json``.

        Raises:
            InputError: The store of the maps is none, was saved without the map, or is of another
                model or of other features; or the folder has other parameters.
        """
        maps = self._open_maps(decoding)
        parameters = {**decoding, **self.parameters(maps)}
        return maps, CurveStore.create(self.output, parameters, provenance)

    def _open_maps(self, decoding: Mapping[str, Any]) -> AttributionStore:
        store = AttributionStore.open(self.attribution_dir)
        theirs = store.meta["parameters"]
        part = RANKING_MAPS[self.ranking.map_name].part
        has_part = (
            theirs.get("--save-cross-attention", False)
            if part == CROSS_ATTENTION
            else part in theirs.get("--explain", ())
        )
        if part is not None and not has_part:
            raise InputError(
                f"--attribution-dir {store.path}: saved without {NAMES[part]}, expected a run of "
                f"fairseq-generate with {flags_for([part])}"
            )
        for name in SHARED_PARAMETERS:
            if theirs.get(name) != decoding[name]:
                raise InputError(
                    f"--attribution-dir {store.path}: has {name} = {theirs.get(name)}, this run "
                    f"has {decoding[name]}; expected maps of the same model and features"
                )
        return store

    def parameters(self, maps: AttributionStore) -> dict[str, Any]:
        """Return what the curves depend on besides decoding, for the folder's ``meta.json``.

        Args:
            maps: The store of the maps; what these depend on is among the parameters.
        """
        ranking = self.ranking
        parameters: dict[str, Any] = {
            "mode": self.mode,
            "--deletion-map": ranking.map_name,
            "--deletion-step": self.step,
        }
        if ranking.map_name == "input-frames":
            parameters["--deletion-aggregation"] = ranking.aggregation
        if ranking.map_name == "cross-attention":
            parameters |= {
                "--deletion-layers": _from_one(ranking.layers),
                "--deletion-heads": _from_one(ranking.heads),
            }
        if ranking.map_name.startswith("random"):
            parameters["--deletion-seed"] = ranking.seed
        theirs = maps.meta["parameters"]
        return parameters | {f"{name} of the maps": value for name, value in theirs.items()}


def _ranking(args: Namespace) -> Ranking:
    name = args.deletion_map
    if name not in RANKING_MAPS:
        raise InputError(f"--deletion-map {name}: expected one of {', '.join(RANKING_MAPS)}")
    if args.deletion_aggregation not in AGGREGATIONS:
        raise InputError(
            f"--deletion-aggregation {args.deletion_aggregation}: expected one of "
            f"{', '.join(AGGREGATIONS)}"
        )
    if args.deletion_seed < 0:
        raise InputError(f"--deletion-seed {args.deletion_seed}: expected 0 or more")
    for flag, value, usual, maps in (
        ("aggregation", args.deletion_aggregation, "2d-max", "input-frames"),
        ("seed", args.deletion_seed, 0, "random"),
    ):
        if value != usual and not name.startswith(maps):
            raise InputError(
                f"--deletion-{flag} {value} with --deletion-map {name}: expected --deletion-map "
                f"{maps}"
            )
    for flag in ("layers", "heads"):
        numbers = getattr(args, f"deletion_{flag}")
        if numbers is None:
            continue
        if name != "cross-attention":
            raise InputError(
                f"--deletion-{flag} with --deletion-map {name}: expected --deletion-map "
                "cross-attention"
            )
        if min(numbers) < 1 or len(set(numbers)) < len(numbers):
            raise InputError(
                f"--deletion-{flag} {' '.join(map(str, numbers))}: expected different numbers from "
                "1"
            )
    return Ranking(
        map_name=name,
        aggregation=args.deletion_aggregation,
        layers=_from_zero(args.deletion_layers),
        heads=_from_zero(args.deletion_heads),
        seed=args.deletion_seed,
    )


def _from_zero(numbers: Sequence[int] | None) -> tuple[int, ...] | None:
    return None if numbers is None else tuple(sorted(number - 1 for number in numbers))


def _from_one(numbers: Sequence[int] | None) -> list[int] | None:
    return None if numbers is None else [number + 1 for number in numbers]
