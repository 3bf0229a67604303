"""The data configuration (``config.yaml``) of fairseq's speech-to-text tasks, checked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fairseq.data import Dictionary
from fairseq.data.audio.data_cfg import S2TDataConfig
from fairseq.data.audio.feature_transforms import AUDIO_FEATURE_TRANSFORM_REGISTRY

from fbk_xattn.errors import InputError

SPECAUGMENT_KEYS = (
    "freq_mask_F",
    "freq_mask_N",
    "time_mask_N",
    "time_mask_T",
    "time_mask_p",
    "time_warp_W",
    "mask_value",
)


class DataConfig(S2TDataConfig):
    """fairseq's configuration with the transcript vocabulary of the published system.

    Further keys: ``vocab_filename_src`` and ``bpe_tokenizer_src`` (default: those of the target).
    ``time_wrap_W`` is read as ``time_warp_W``, its name in today's fairseq, which ignores unknown
    keys.
    """

    def __init__(self, path: Path) -> None:
        """Read and check ``path``.

        Raises:
            InputError: Missing or not a mapping, or an unknown transform or SpecAugment key.
        """
        try:
            super().__init__(path)
        except FileNotFoundError:
            raise InputError(f"{path}: no such data config (--config-yaml)") from None
        except Exception as error:  # fairseq wraps every parser error in a bare Exception
            raise InputError(f"{path}: unreadable data config ({error})") from None
        if not isinstance(self.config, dict):
            raise InputError(f"{path}: expected a mapping of keys to values")
        self._check_specaugment(path)
        for kind in ("bpe_tokenizer", "bpe_tokenizer_src"):
            if (self.config.get(kind) or {}).get("sentencepiece_enable_sampling"):
                raise InputError(
                    f"{path}: {kind} has sentencepiece_enable_sampling, which would sample in "
                    "validation too; --subword-regularization samples in training alone"
                )
        for kind in ("transforms", "feature_transforms"):
            _check_feature_transforms(path, kind, self.config.get(kind, {}))
        for kind in ("waveform_transforms", "dataset_transforms"):
            if self.config.get(kind):
                raise InputError(f"{path}: {kind} are not supported, expected none")

    def _check_specaugment(self, path: Path) -> None:
        specaugment = self.config.get("specaugment") or {}
        if not isinstance(specaugment, dict):
            raise InputError(f"{path}: specaugment is {specaugment}, expected a mapping")
        if "time_wrap_W" in specaugment:
            specaugment.setdefault("time_warp_W", specaugment.pop("time_wrap_W"))
        for key in specaugment:
            if key not in SPECAUGMENT_KEYS:
                raise InputError(
                    f"{path}: unknown specaugment key {key}, expected {', '.join(SPECAUGMENT_KEYS)}"
                )

    @property
    def vocab_filename_src(self) -> str:
        """Vocabulary of the transcripts, relative to the data folder."""
        return self.config.get("vocab_filename_src", self.vocab_filename)

    @property
    def bpe_tokenizer_src(self) -> dict[str, str]:
        """Subword model of the transcripts, in fairseq's notation."""
        if "bpe_tokenizer_src" not in self.config:
            return self.bpe_tokenizer
        return self._auto_convert_to_abs_path(self.config["bpe_tokenizer_src"])

    def resolve_audio(self, audio: str) -> str:
        """Return the location of a manifest's ``audio`` cell.

        A relative ``audio_root`` counts from the folder of the config; where that gives no file,
        from the current folder, as in fairseq.
        """
        location = Path(self.audio_root) / audio
        beside = self.root / location
        return str(beside if _is_file(beside) else location)


def _check_feature_transforms(path: Path, kind: str, transforms: Any) -> None:
    """Check the feature transforms of each split, of which fairseq would raise a KeyError.

    Raises:
        InputError: They are not lists of known names.
    """
    if not isinstance(transforms, dict) or not all(
        isinstance(names, list | None) for names in transforms.values()
    ):
        raise InputError(f"{path}: {kind} is {transforms}, expected lists of names by split")
    known = sorted(AUDIO_FEATURE_TRANSFORM_REGISTRY)
    for name in [name for names in transforms.values() for name in names or []]:
        if name not in known:
            raise InputError(
                f"{path}: unknown feature transform {name} under {kind}, "
                f"expected {', '.join(known)}"
            )


def _is_file(location: Path) -> bool:
    """Tell whether a plain path or the archive of ``archive.zip:offset:length`` is a file.

    One that may not be looked for is none: who loads it says why.
    """
    path, in_archive, _ = str(location).partition(".zip:")
    try:
        return Path(f"{path}.zip" if in_archive else path).is_file()
    except OSError:
        return False


def load_dictionary(path: Path) -> Dictionary:
    """Load a fairseq vocabulary (one ``symbol count`` a line).

    Raises:
        InputError: Missing or unreadable.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such vocabulary")
    try:
        return Dictionary.load(str(path))
    except Exception as error:  # fairseq raises a bare Exception for a wrong encoding
        raise InputError(f"{path}: unreadable vocabulary ({error})") from None
