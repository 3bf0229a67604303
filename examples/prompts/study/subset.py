"""A few utterances of one or more manifests, chosen by rule.

    python -m examples.prompts.study.subset N OUTPUT MANIFEST...

Of each manifest as many (N over their number, the first ones take the remainder), at equal
distances in the order of speaker and length, so that voices and lengths are there in proportion.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from fbk_xattn.data.manifest import ManifestRow, read_manifest, write_manifest
from fbk_xattn.errors import InputError


def chosen(rows: Sequence[ManifestRow], n: int) -> list[ManifestRow]:
    """Return ``n`` rows at equal distances in the order of speaker, length and id, or all."""
    ordered = sorted(rows, key=lambda row: (row.speaker, row.n_frames, row.id))
    n = min(n, len(ordered))
    return [ordered[(2 * i + 1) * len(ordered) // (2 * n)] for i in range(n)]


def main(argv: Sequence[str] | None = None) -> int:
    """Write the manifest."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("number", metavar="N", type=int, help="utterances")
    parser.add_argument("output", metavar="OUTPUT", type=Path, help="manifest to write")
    parser.add_argument("manifests", metavar="MANIFEST", type=Path, nargs="+")
    args = parser.parse_args(argv)
    try:
        if args.number < 1:
            raise InputError(f"{args.number} utterances: expected at least 1")
        quotient, remainder = divmod(args.number, len(args.manifests))
        rows = [
            row
            for index, manifest in enumerate(args.manifests)
            for row in chosen(read_manifest(manifest), quotient + (index < remainder))
        ]
        write_manifest(args.output, rows)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
