"""Whether a store has an utterance of the data at hand, or another one by the same id."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from fbk_xattn.analysis.comparison import DATA, same_features
from fbk_xattn.data.manifest import ManifestRow
from fbk_xattn.errors import InputError
from fbk_xattn.store import Attribution, DecodedCurve


def check_texts(file: Path, stored: Attribution | DecodedCurve, row: ManifestRow) -> None:
    """Check that an utterance was stored with the languages and texts of the manifest.

    Args:
        file: That it was read from.
        stored: The utterance.
        row: Of the manifest, with its id.

    Raises:
        InputError: It was not.
    """
    for name in DATA:
        theirs, ours = getattr(stored, name), getattr(row, name)
        if theirs != ours:
            raise InputError(
                f"{file}: stored with {name} {theirs!r}, the manifest has {ours!r}; expected the "
                "same data (another folder for other data, or delete the file to replace it)"
            )


def check_features(file: Path, stored: Attribution, features: Tensor) -> None:
    """Check that an utterance was stored with the features at hand.

    Args:
        file: That it was read from.
        stored: The utterance.
        features: ``(T, F)``, after all transforms.

    Raises:
        InputError: It was not.
    """
    theirs, ours = stored.fbank, features.float().cpu().numpy()
    if same_features(theirs, ours):
        return
    if theirs.shape == ours.shape:
        how = f"that differ from those of the data by up to {abs(theirs - ours).max():.1f}"
    else:
        how = f"of the shape {theirs.shape}, the data have {ours.shape}"
    raise InputError(
        f"{file}: of features {how}; expected the same data (another folder for other data, or "
        "delete the file to replace it)"
    )
