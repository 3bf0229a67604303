"""What training and generation ask of manifests beyond their format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fbk_xattn.data.manifest import ManifestRow
from fbk_xattn.errors import InputError
from fbk_xattn.store.directory import file_name

Manifests = Mapping[str, Sequence[ManifestRow]]


def check_texts(manifests: Manifests) -> None:
    """Check that every row has the texts that the losses need.

    Args:
        manifests: Rows of each split.

    Raises:
        InputError: A row has no transcript or no target text.
    """
    for name, manifest in manifests.items():
        for row in manifest:
            for column in ("src_text", "tgt_text"):
                if not getattr(row, column).strip():
                    raise InputError(
                        f"{name}.tsv, utterance {row.id!r}: {column} is empty, expected the "
                        f"{'transcript' if column == 'src_text' else 'target text'} to train on"
                    )


def check_unique_ids(names: Sequence[str], manifests: Manifests) -> None:
    """Check that an id occurs once in all: it names one file of a store.

    Args:
        names: Of the splits to use; one that occurs twice brings its ids twice.
        manifests: Rows of each split.

    Raises:
        InputError: An id occurs again.
    """
    seen: dict[str, str] = {}
    for name in names:
        for row in manifests[name]:
            if row.id in seen:
                raise InputError(
                    f"utterance {row.id!r} is in {seen[row.id]}.tsv and {name}.tsv, expected "
                    "unique ids"
                )
            seen[row.id] = name


def check_stored_names(manifests: Manifests) -> None:
    """Check that every id can name a file of a store.

    Args:
        manifests: Rows of each split.

    Raises:
        InputError: One is too long.
    """
    for name, manifest in manifests.items():
        for row in manifest:
            try:
                file_name(row.id)
            except InputError as error:
                raise InputError(f"{name}.tsv: {error}") from None
