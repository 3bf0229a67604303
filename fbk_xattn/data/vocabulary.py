"""SentencePiece vocabularies in fairseq's form."""

from __future__ import annotations

import io
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

import sentencepiece

from fbk_xattn.errors import InputError
from fbk_xattn.files import whole_file, write_text

LANG_TAG = "<lang:{}>"
VOCABULARY_FILES = ("spm.model", "dict.txt")
FAIRSEQ_SYMBOLS = ("<s>", "<pad>", "</s>", "<unk>")


def check_vocabulary(folder: Path) -> None:
    """Check that a folder holds a vocabulary.

    Raises:
        InputError: A file is missing.
    """
    for name in VOCABULARY_FILES:
        if not (folder / name).is_file():
            raise InputError(
                f"{folder}: has no {name}, expected a vocabulary ({' and '.join(VOCABULARY_FILES)})"
            )


def check_tags(dictionary: Path, languages: Collection[str]) -> None:
    """Check that a fairseq vocabulary has tags of these target languages.

    Raises:
        InputError: It lacks one.
    """
    lines = dictionary.read_text(encoding="utf-8", errors="replace").splitlines()
    tags = {symbol for symbol in (line.partition(" ")[0] for line in lines) if "<lang:" in symbol}
    for tag in map(LANG_TAG.format, sorted(languages)):
        if tag not in tags:
            known = ", ".join(sorted(tags)) or "one"
            raise InputError(f"{dictionary}: no language tag {tag}, expected targets in {known}")


def train_vocabulary(
    texts: Iterable[str], languages: Sequence[str], size: int, model: Path, dictionary: Path
) -> int:
    """Train a unigram model and write it with fairseq's dictionary.

    Args:
        texts: Sentences of the training splits, transcripts and translations alike.
        languages: Codes that get a tag, ``<lang:en>``.
        size: Wanted number of symbols; fewer come out of a small text.
        model: SentencePiece model to write.
        dictionary: fairseq vocabulary to write (``symbol count`` a line).

    Returns:
        Number of symbols, fairseq's own four included.

    Raises:
        InputError: No text, or a size that it cannot give.
    """
    sentences = [text for text in texts if text]
    if not sentences:
        raise InputError("no text to train a vocabulary on, expected transcripts in the manifests")
    written = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(sentences),
            model_writer=written,
            model_type="unigram",
            vocab_size=size,
            hard_vocab_limit=False,
            character_coverage=1.0,
            num_threads=1,
            bos_id=0,
            pad_id=1,
            eos_id=2,
            unk_id=3,
            user_defined_symbols=[LANG_TAG.format(language) for language in sorted(languages)],
            minloglevel=2,
        )
    except RuntimeError as error:
        raise InputError(f"vocabulary of {size} symbols: {error}") from None
    processor = sentencepiece.SentencePieceProcessor(model_proto=written.getvalue())
    symbols = [processor.id_to_piece(i) for i in range(processor.get_piece_size())]
    lines = [f"{symbol} 1" for symbol in symbols if symbol not in FAIRSEQ_SYMBOLS]
    with whole_file(model) as temporary:
        temporary.write_bytes(written.getvalue())
    write_text(dictionary, "\n".join(lines) + "\n")
    return len(symbols)
