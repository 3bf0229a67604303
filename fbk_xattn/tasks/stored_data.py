"""Whether a store has an utterance of the data at hand, or another one by the same id."""

from __future__ import annotations

from pathlib import Path

from fairseq.data import Dictionary
from torch import Tensor

from fbk_xattn.analysis.comparison import DATA, same_features
from fbk_xattn.data.manifest import ManifestRow
from fbk_xattn.errors import InputError
from fbk_xattn.store import Attribution, DecodedCurve
from fbk_xattn.store.attribution import FloatArray


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


def check_vocabulary(file: Path, stored: Attribution, dictionary: Dictionary) -> None:
    """Check that the tokens of an utterance are those of the vocabulary at hand.

    Args:
        file: That it was read from.
        stored: The utterance.
        dictionary: Of target tokens.

    Raises:
        InputError: They are not.
    """
    for index, token in zip(stored.token_ids.tolist(), stored.tokens, strict=True):
        if dictionary[index] != token:
            raise InputError(
                f"{file}: token {index} is {token!r}, the vocabulary has {dictionary[index]!r}; "
                "expected the vocabulary that the model was trained with"
            )


def check_features(file: Path, theirs: FloatArray, features: Tensor) -> None:
    """Check that an utterance was stored with the features at hand.

    Args:
        file: That it was read from.
        theirs: ``(T, F)``, those stored.
        features: ``(T, F)``, after all transforms.

    Raises:
        InputError: It was not.
    """
    ours = features.float().cpu().numpy()
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
