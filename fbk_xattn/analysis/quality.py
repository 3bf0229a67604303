"""Quality of the hypotheses of a store: WER, BLEU, COMET (paper, Table 5)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from fbk_xattn.analysis.metric import Metric
from fbk_xattn.analysis.references import check_references
from fbk_xattn.analysis.text_scores import MORRIS, POST, bleu_with_signature, wer
from fbk_xattn.errors import InputError
from fbk_xattn.store import AttributionStore

WER = Metric("wer", "lower", 0.0, float("inf"), f"{MORRIS}; normaliser: Radford et al. 2023", "%")
BLEU = Metric("bleu", "higher", 0.0, 100.0, POST)
COMET = Metric("comet", "higher", 0.0, 1.0, "Rei et al. 2022, COMET-22")

# No release of COMET takes the numpy of constraints.txt.
INSTALL_COMET = (
    "install it from a checkout, best in an environment of its own, as it needs numpy below 2: "
    'pip install ".[comet]", without -c constraints.txt'
)

# Sources, hypotheses and references to the score of the corpus.
CometScorer = Callable[[Sequence[str], Sequence[str], Sequence[str]], float]


@dataclass(frozen=True)
class Quality:
    """Quality of the hypotheses of one language pair.

    Attributes:
        src_lang: Language spoken.
        tgt_lang: Language of the hypotheses; equal to ``src_lang`` for ASR.
        ids: The utterances that were scored.
        wer: Word error rate in percent after the Whisper normaliser, of ASR: of all utterances
            together, so that one whose reference has no word counts with what was inserted. NaN
            where no reference has a word.
        without_words: Utterances of ASR whose reference has no word after the normaliser.
        bleu: BLEU from 0 to 100, of ST.
        bleu_signature: How sacrebleu computed it.
        comet: COMET, of ST, if a model was given.
    """

    src_lang: str
    tgt_lang: str
    ids: tuple[str, ...]
    wer: float | None = None
    bleu: float | None = None
    bleu_signature: str | None = None
    comet: float | None = None
    without_words: tuple[str, ...] = ()

    @property
    def is_asr(self) -> bool:
        """Whether the hypotheses are transcripts."""
        return self.src_lang == self.tgt_lang


def quality(
    store: AttributionStore,
    references: Mapping[str, str] | None = None,
    comet: CometScorer | None = None,
) -> tuple[Quality, ...]:
    """Score the hypotheses of a store against their references, each language pair apart.

    Args:
        store: Of ``fairseq-generate --attribution-dir``.
        references: Utterance id to reference text, instead of those of the store. Utterances
            without a hypothesis in the store are not looked at.
        comet: From :func:`comet_scorer`; without it no COMET.

    Returns:
        One result a language pair, sorted by source and target language.

    Raises:
        InputError: The store is empty or has a damaged file, or an utterance has no reference.
    """
    texts = {utterance_id: store.texts(utterance_id) for utterance_id in store.ids()}
    if not texts:
        raise InputError(f"{store.path}: no utterance in this store, expected at least one")
    chosen = check_references(
        {name: text["tgt_text"] for name, text in texts.items()}, references, str(store.path)
    )
    texts = {name: {**text, "tgt_text": chosen[name]} for name, text in texts.items()}
    pairs = sorted({(text["src_lang"], text["tgt_lang"]) for text in texts.values()})
    return tuple(_of_pair(*pair, texts, comet) for pair in pairs)


def whisper_normalizer(language: str) -> Callable[[str], str]:
    """Return the text normaliser of Whisper: the English one, or the basic one for others.

    Args:
        language: ISO 639 code, for example ``en``.
    """
    return _normalizer(language == "en")


@cache
def _normalizer(is_english: bool) -> Callable[[str], str]:
    # Inside, as the tables of the English one take time to load.
    if is_english:
        from whisper_normalizer.english import EnglishTextNormalizer

        return EnglishTextNormalizer()
    from whisper_normalizer.basic import BasicTextNormalizer

    return BasicTextNormalizer()


def normalized_wer(references: Sequence[str], hypotheses: Sequence[str], language: str) -> float:
    """Return the word error rate of a corpus in percent after the Whisper normaliser.

    NaN where no reference has a word, for which it is not defined.

    Args:
        references: One an utterance.
        hypotheses: Theirs, in the same order.
        language: Of both.
    """
    normalize = whisper_normalizer(language)
    normalized = [normalize(text) for text in references]
    if not any(text.strip() for text in normalized):
        return float("nan")
    return wer(normalized, [normalize(text) for text in hypotheses])


def comet_scorer(model: str, gpus: int = 0) -> CometScorer:
    """Load a COMET model.

    Args:
        model: Name on the Hugging Face hub (``Unbabel/wmt22-comet-da``), or a checkpoint file.
        gpus: How many to score on; 0 for the CPU.

    Raises:
        InputError: COMET is not installed, or there is no such model.
    """
    try:
        import comet
    except ImportError as error:
        raise InputError(
            f"--comet {model}: needs the package unbabel-comet ({error}); {INSTALL_COMET}"
        ) from None
    try:
        file = model if Path(model).is_file() else comet.download_model(model)
        loaded = comet.load_from_checkpoint(file)
    except Exception as error:  # of the hub, of the network, of torch
        raise InputError(
            f"--comet {model}: cannot be loaded ({error}), expected the name of a model that can "
            "be downloaded, or a checkpoint file"
        ) from None

    def score(
        sources: Sequence[str], hypotheses: Sequence[str], references: Sequence[str]
    ) -> float:
        triples = zip(sources, hypotheses, references, strict=True)
        data = [{"src": s, "mt": h, "ref": r} for s, h, r in triples]
        return float(loaded.predict(data, gpus=gpus, progress_bar=False).system_score)

    return score


def _of_pair(
    src_lang: str, tgt_lang: str, texts: Mapping[str, Mapping[str, str]], comet: CometScorer | None
) -> Quality:
    chosen = {
        name: text
        for name, text in texts.items()
        if (text["src_lang"], text["tgt_lang"]) == (src_lang, tgt_lang)
    }
    sources, references, hypotheses = (
        [text[column] for text in chosen.values()]
        for column in ("src_text", "tgt_text", "hypothesis")
    )
    ids = tuple(chosen)
    if src_lang == tgt_lang:
        normalize = whisper_normalizer(tgt_lang)
        return Quality(
            src_lang,
            tgt_lang,
            ids,
            wer=normalized_wer(references, hypotheses, tgt_lang),
            without_words=tuple(
                name for name in ids if not normalize(chosen[name]["tgt_text"]).strip()
            ),
        )
    score, signature = bleu_with_signature(references, hypotheses)
    return Quality(
        src_lang,
        tgt_lang,
        ids,
        bleu=score,
        bleu_signature=signature,
        comet=comet(sources, hypotheses, references) if comet is not None else None,
    )
