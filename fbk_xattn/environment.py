"""Whether the fairseq that is installed is one that the plugin works with."""

from __future__ import annotations

INSTALL = "install it with: pip install -c constraints.txt ve-fairseq==0.12.3"


def require_fairseq() -> None:
    """Check that fairseq imports and has what the plugin builds on.

    Raises:
        ImportError: It is missing or unfit; the message says what was found and what to install.
    """
    try:
        import fairseq
    except ImportError as error:
        raise ImportError(f"fbk_xattn needs fairseq 0.12, not found ({error}); {INSTALL}") from None
    except Exception as error:  # 0.12.2 breaks in its own dataclasses on Python 3.11
        raise ImportError(f"fbk_xattn: this fairseq does not import ({error}); {INSTALL}") from None
    version = getattr(fairseq, "__version__", "unknown")
    try:
        from fairseq.data.audio.speech_to_text_dataset import SpeechToTextDatasetItem  # noqa: F401
        from fairseq.models.speech_to_text.s2t_transformer import S2TTransformerModel  # noqa: F401
        from fairseq.sequence_generator import EnsembleModel  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"fbk_xattn needs fairseq 0.12, found {version} ({error}); {INSTALL}"
        ) from None
