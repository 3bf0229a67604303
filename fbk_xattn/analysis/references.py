"""The references that hypotheses are scored against."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fbk_xattn.errors import InputError

NAMED_AT_MOST = 5


def check_references(
    stored: Mapping[str, str], given: Mapping[str, str] | None, where: str
) -> dict[str, str]:
    """Return the reference of each utterance.

    Args:
        stored: Utterance id to the reference that the store has.
        given: Utterance id to reference (of a manifest, for example), to use instead; it may have
            others too.
        where: The store, for messages.

    Returns:
        Utterance id to reference, in the order of ``stored``.

    Raises:
        InputError: An utterance has no reference, or an empty one; they are listed.
    """
    if given is not None:
        missing = [name for name in stored if name not in given]
        if missing:
            raise InputError(
                f"{where}: no reference for {len(missing)} of {len(stored)} utterances "
                f"({listed(missing)}), expected their ids in the manifest, whose {len(given)} "
                f"begin with {next(iter(given), None)!r}"
            )
    references = {name: text if given is None else given[name] for name, text in stored.items()}
    empty = [name for name, text in references.items() if not text.strip()]
    if empty:
        raise InputError(
            f"{where}: {len(empty)} of {len(stored)} references are empty ({listed(empty)}), "
            "expected the tgt_text of each; --manifest TSV gives others"
        )
    return references


def listed(names: Sequence[str]) -> str:
    """Join the first names, and say how many more there are."""
    more = len(names) - NAMED_AT_MOST
    return ", ".join(names[:NAMED_AT_MOST]) + (f" and {more} more" if more > 0 else "")
