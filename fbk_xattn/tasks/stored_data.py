"""Whether a store has an utterance of the data at hand, or another one by the same id."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from fbk_xattn.data.manifest import ManifestRow
from fbk_xattn.errors import InputError
from fbk_xattn.store import Attribution, DecodedCurve

# Features of two extractors differ by less than 0.01, before and after CMVN.
FEATURE_TOLERANCE = 0.1
TEXTS = ("src_lang", "tgt_lang", "src_text", "tgt_text")


def check_texts(file: Path, stored: Attribution | DecodedCurve, row: ManifestRow) -> None:
    """Check that an utterance was stored with the languages and texts of the manifest.

    Args:
        file: That it was read from.
        stored: The utterance.
        row: Of the manifest, with its id.

    Raises:
        InputError: It was not.
    """
    for name in TEXTS:
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
    if theirs.shape != ours.shape:
        how = f"of the shape {theirs.shape}, the data have {ours.shape}"
    elif (difference := abs(theirs - ours).max(initial=0.0)) > FEATURE_TOLERANCE:
        how = f"that differ from those of the data by up to {difference:.1f}"
    else:
        return
    raise InputError(
        f"{file}: of features {how}; expected the same data (another folder for other data, or "
        "delete the file to replace it)"
    )
