"""``fbk-xattn export``: input saliency as HDF5 in the layout that published scripts read."""

from __future__ import annotations

import argparse
from pathlib import Path

from fbk_xattn.analysis.references import listed
from fbk_xattn.cli.reading import progress
from fbk_xattn.cli.results import note
from fbk_xattn.errors import InputError
from fbk_xattn.store import AttributionStore


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``export``."""
    parser = subparsers.add_parser(
        "export",
        help="input saliency as HDF5 in the layout of FBK-fairseq",
        description="Write the input saliency of all utterances into one HDF5 file in the layout "
        "of FBK-fairseq's explanations: a group for each row of the manifest (0, 1, ...) with "
        "fbank_heatmap, tgt_embed_heatmap (zeros if previous tokens were not occluded), tgt_text, "
        "src_text and n_masks. The utterance id is the attribute 'id' of the group.",
        allow_abbrev=False,
    )
    parser.add_argument("store", metavar="OUT", type=Path, help="attribution store to read")
    parser.add_argument(
        "--output", metavar="FILE.h5", type=Path, required=True, help="file to write"
    )
    parser.add_argument(
        "--manifest",
        metavar="TSV",
        type=Path,
        help="manifest that was decoded: an utterance's group is its row, from 0 (default: "
        "utterances are numbered in the order of their ids)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the file and print how many utterances are in it; notes go to standard error.

    Raises:
        InputError: Not a store or an empty one, an utterance of it that is not in the manifest, is
            damaged or has no input saliency, or a file that cannot be written.
    """
    from fbk_xattn.store.export import export_h5

    with AttributionStore.open(args.store) as store:
        ids = store.ids()
        if not ids:
            raise InputError(f"{store.path}: no utterance in this store, expected at least one")
        if args.manifest is None:
            rows = {utterance_id: number for number, utterance_id in enumerate(ids)}
            note("groups are numbered in the order of the ids; with --manifest TSV by its rows")
        else:
            rows = _rows_of_manifest(args.manifest, store, ids)
        export_h5(store, rows, args.output, progress())
    print(f"{args.output}: {len(rows)} utterances")
    return 0


def _rows_of_manifest(manifest: Path, store: AttributionStore, ids: list[str]) -> dict[str, int]:
    """Return the row of each utterance of the store, from 0, in the order of the rows."""
    from fbk_xattn.data.manifest import read_manifest

    known = {row.id: number for number, row in enumerate(read_manifest(manifest))}
    for utterance_id in ids:
        if utterance_id not in known:
            raise InputError(
                f"--manifest {manifest}: no row for utterance {utterance_id!r} of {store.path}, "
                "expected the manifest that was decoded"
            )
    there = set(ids)
    if missing := [utterance_id for utterance_id in known if utterance_id not in there]:
        note(f"{len(missing)} of {len(known)} rows are not in the store: {listed(missing)}")
    return {utterance_id: row for utterance_id, row in known.items() if utterance_id in there}
