import numpy as np
import pytest
import sentencepiece
from fairseq.data import Dictionary

from fbk_xattn.data.vocabulary import train_vocabulary
from fbk_xattn.errors import InputError

TEXTS = [
    "please hold the line",
    "thank you for calling",
    "la chiamata è importante",
    "premi uno per l'italiano",
    "",
]


@pytest.fixture
def train(tmp_path):
    """Train and return the size told, the SentencePiece processor and fairseq's dictionary."""

    def run(texts=TEXTS, languages=("it", "en"), size=50):
        model, dictionary = tmp_path / "spm.model", tmp_path / "dict.txt"
        told = train_vocabulary(texts, languages, size, model, dictionary)
        processor = sentencepiece.SentencePieceProcessor(model_file=str(model))
        return told, processor, Dictionary.load(str(dictionary))

    return run


def test_language_tags_are_symbols_of_the_dictionary(train):
    _, processor, dictionary = train()
    for tag in ("<lang:en>", "<lang:it>"):
        assert tag in dictionary
        assert processor.encode(f"{tag} thank", out_type=str)[:2] == ["▁", tag]
    assert "<lang:fr>" not in dictionary


def test_dictionary_and_model_agree_on_every_index(train):
    size, processor, dictionary = train()
    assert len(dictionary) == size == processor.get_piece_size()
    assert dictionary.symbols == [processor.id_to_piece(i) for i in range(size)]


def test_every_text_is_coded_without_unknowns_and_back(train):
    _, processor, dictionary = train()
    for text in TEXTS:
        pieces = processor.encode(text, out_type=str)
        assert all(dictionary.index(piece) != dictionary.unk() for piece in pieces)
        assert processor.decode(pieces) == text


def test_small_text_gives_fewer_symbols_than_wanted(train):
    size, _, dictionary = train(size=4000)
    assert len(dictionary) == size < 1000


def test_vocabulary_has_the_wanted_size(train):
    rng = np.random.default_rng(0)
    words = ["".join(rng.choice(["ka", "to", "rin", "su", "mel", "o"], 3)) for _ in range(100)]
    texts = [" ".join(rng.choice(words, 8)) for _ in range(300)]
    for size in (40, 80):
        assert train(texts, size=size)[0] == size


def test_training_again_writes_the_same_bytes(train, tmp_path):
    def written():
        train()
        return [(tmp_path / name).read_bytes() for name in ("spm.model", "dict.txt")]

    assert written() == written()


def test_order_of_languages_does_not_matter(train):
    assert train(languages=("it", "en"))[2].symbols == train(languages=("en", "it"))[2].symbols


@pytest.mark.parametrize("texts", [[], [""]])
def test_no_text_is_refused(train, texts, tmp_path):
    with pytest.raises(InputError, match="no text to train a vocabulary on"):
        train(texts=texts)
    assert list(tmp_path.iterdir()) == []


def test_size_too_small_for_the_letters_is_refused(train, tmp_path):
    with pytest.raises(InputError, match=r"^vocabulary of 7 symbols: "):
        train(size=7)
    assert list(tmp_path.iterdir()) == []
