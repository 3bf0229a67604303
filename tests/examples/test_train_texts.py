"""Sentence pairs to speak: how they are read, and that none is close to a held-out sentence."""

import itertools
import unicodedata

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from examples.prompts.train.texts import (
    HeldOut,
    known_words,
    read_held_out,
    read_pairs,
    texts_of,
    without_held_out,
)
from fbk_xattn.data.prompts_texts import clean_text
from fbk_xattn.errors import InputError

SENTENCES = {
    "en": [
        "goodbye",
        "call cancelled",
        "please log in",
        "you have twenty two new messages",
        "i'm sorry that isn't a valid extension",
        "to reject the message press one",
        "the number you have dialled is not in service please check it and try again",
    ],
    "it": [
        "più tardi",
        "l'interno è occupato",
        "la città è lontana perché non c'è il treno",
        "per ascoltare l'ora esatta premere il tasto due",
        "chiamata annullata",
    ],
}
HELD_OUT = HeldOut(SENTENCES)
WORDS = st.sampled_from("a b c aa e è ò o l'a d'è la".split())
SENTENCE = st.lists(WORDS, max_size=9).map(" ".join)


def plain(text):
    """Return words without accents and apostrophes."""
    signs = (unicodedata.normalize("NFD", sign)[0] for sign in text.replace("'", ""))
    return "".join(signs).split()


def letters(words):
    return "".join(sign for sign, _ in itertools.groupby("".join(words)))


def distance(one, other):
    """Return the edit distance, by its recursion."""
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        last, row = row, [i]
        for j, b in enumerate(other, 1):
            row.append(min(last[j] + 1, row[-1] + 1, last[j - 1] + (a != b)))
    return row[-1]


def close(text, sentence):
    """Return whether a sentence is close to a held-out one, by the definition."""
    words, held = plain(text), plain(sentence)
    if not held:
        return False
    if len(held) < 4:
        return letters(words) == letters(held)
    n_words = max(len(words), len(held))
    return letters(held) in letters(words) or 4 * distance(words, held) <= n_words


@given(st.lists(SENTENCE, max_size=5), SENTENCE)
@example(["a b c d"], "a b c")
@example(["a b c"], "a b c e")
@example([""], "")
@settings(max_examples=300, deadline=None)
def test_close_by_the_plain_definition(held, text):
    check_close(held, text)


@given(data=st.data())
@settings(max_examples=300, deadline=None)
def test_close_by_the_plain_definition_near_its_bound(data):
    words = data.draw(st.lists(st.sampled_from("abcdefgh"), min_size=3, max_size=9))
    changed = list(words)
    for _ in range(data.draw(st.integers(0, 3))):
        at, length = data.draw(st.integers(0, len(changed))), data.draw(st.integers(0, 1))
        changed[at : at + length] = data.draw(st.sampled_from(("", "x", "yz")))
    check_close([" ".join(words)], " ".join(changed))


def check_close(held, text):
    expected = any(close(text, sentence) for sentence in held)
    for lang in ("en", "it"):
        assert HeldOut({lang: held}).close_to(text, lang) is expected


@pytest.mark.parametrize("lang", ["en", "it"])
@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_a_held_out_sentence_is_caught_however_it_is_written(lang, data):
    sentence = data.draw(st.sampled_from(SENTENCES[lang]))
    sign = st.sampled_from(["", ".", ",", "!", "?", ";", ":", "…", "...", "-", '"', "»", "\u200b"])
    text = " ".join(word + data.draw(sign) for word in sentence.split())
    changes = {
        "upper": str.upper,
        "title": str.title,
        "curly": lambda t: t.replace("'", "\u2019"),
        "apart": lambda t: t.replace("'", "' "),
        "decomposed": lambda t: unicodedata.normalize("NFD", t),
        "wide": lambda t: t.replace("a", "\uff41"),
        "spaces": lambda t: f"  {t.replace(' ', '  ')}\t",
        "digits": lambda t: t.replace("twenty two", "22").replace("due", "2"),
        "no accents": lambda t: "".join(unicodedata.normalize("NFD", sign)[0] for sign in t),
        "apostrophe for accent": lambda t: t.replace("città", "citta'").replace("più", "piu'"),
        "american": lambda t: t.replace("ll", "l"),
        "in one": lambda t: t.replace("log in", "login").replace("check it", "check-it"),
    }
    names = data.draw(st.lists(st.sampled_from(sorted(changes)), max_size=4, unique=True))
    for name in names:
        text = changes[name](text)
    assert HELD_OUT.close_to(text, lang), (names, text)
    assert HELD_OUT.close_to(clean_text(text, lang), lang), (names, text)


@pytest.mark.parametrize(
    ("text", "lang"),
    [
        ("goodbye everybody", "en"),  # short ones are in every text
        ("messages", "en"),
        ("to save the recording press two", "en"),
        ("goodbye", "it"),
        ("arrivederci", "it"),
        ("chiamata registrata", "it"),
    ],
)
def test_others_are_kept(text, lang):
    assert not HELD_OUT.close_to(text, lang)


def test_parts_of_longer_sentences_and_a_word_in_four():
    held_out = HeldOut({"en": ["one two three four"]})
    assert held_out.close_to("zero one two three four five six seven", "en")
    assert held_out.close_to("one two three five", "en")
    assert not held_out.close_to("one two five six", "en")
    assert not held_out.close_to("one two three four", "it")


def test_a_pair_goes_for_either_of_its_sides():
    pairs = [("goodbye", "ciao"), ("see you", "più tardi!"), ("hello", "pronto")]
    assert without_held_out(pairs, HELD_OUT) == [("hello", "pronto")]


def row(split, english, italian, source="en"):
    texts = {"en": english, "it": italian}
    target = "it" if source == "en" else "en"
    return {
        "split": split,
        "src_lang": source,
        "src_text": texts[source],
        "tgt_lang": target if texts[target] else "",
        "tgt_text": texts[target],
    }


def test_held_out_are_both_sides_of_dev_and_test():
    rows = [
        row("train", "kept", "tenuta"),
        row("dev", "First!", "Prima."),
        row("test", "second", "seconda", source="it"),
        row("test", "third", ""),
    ]
    held_out = read_held_out(rows)
    for lang, words in (("en", "first second third"), ("it", "prima seconda")):
        assert all(held_out.close_to(word, lang) for word in words.split())
    assert not held_out.close_to("kept", "en")
    assert not held_out.close_to("tenuta", "it")
    assert not held_out.close_to("", "it")


def test_pairs_are_cleaned_each_once_and_speakable(tmp_path):
    path = tmp_path / "some_en_it.tsv"
    path.write_text(
        'Two cats, "please"!\tDue gatti?\tsome\n'
        "2 cats please\tdue gatti\n"
        "two cats please\tDUE GATTI\n"
        "10 %\tdieci per cento\n"
        "naïve\tingenuo\n"
        "...\tpuntini\n"
        "a b c d e f\tdi più\n",
        encoding="utf-8",
    )
    assert read_pairs(path, 5) == [("two cats please", "due gatti")]
    assert read_pairs(path, 6)[1:] == [("a b c d e f", "di più")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"yes\ts\xc3\xac\nno\n", "line 2: expected English, tab, Italian"),
        (b"yes\tsi\n\nno\tno\n", "line 2: expected English, tab, Italian"),
        (b"yes\ts\xec\n", "expected tab-separated UTF-8 text"),
        (None, "expected tab-separated UTF-8 text"),
    ],
)
def test_bad_pairs_are_one_line(tmp_path, content, message):
    path = tmp_path / "bad_en_it.tsv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        read_pairs(path, 5)
    assert str(caught.value).startswith(f"{path}: ")


def test_texts_of_a_part(tmp_path):
    with pytest.raises(InputError, match=r"has no \*_en_it.tsv, expected sentence pairs"):
        texts_of("general", tmp_path, HELD_OUT, 1, 5, 1)
    for name in ("b_en_it.tsv", "a_en_it.tsv"):
        (tmp_path / name).write_text(f"Goodbye.\tciao\n{name[0]}\tuno\nboth\tdue\n")
    general = texts_of("general", tmp_path, HELD_OUT, 1, 5, 1)
    assert general == [("a", "uno"), ("both", "due"), ("b", "uno")]
    telephone = texts_of("telephone", tmp_path, HELD_OUT, 400, 5, 1)
    assert 380 < len(telephone) < 400
    assert "goodbye" not in {english for english, _ in telephone}


def test_known_words_are_those_of_pairs_and_training_transcripts(tmp_path):
    rows = [
        {"split": "train", "src_lang": "en", "src_text": "Hang UP!"},
        {"split": "train", "src_lang": "it", "src_text": "la città"},
        {"split": "dev", "src_lang": "en", "src_text": "secret"},
    ]
    assert known_words(tmp_path, rows) == {"en": {"hang", "up"}, "it": {"la", "città"}}
    (tmp_path / "a_en_it.tsv").write_text("Good bye.\tciao\n" + "word " * 40 + "\tparola\n")
    known = known_words(tmp_path, rows)
    assert known["en"] == {"hang", "up", "good", "bye", "word"}
    assert known["it"] == {"la", "città", "ciao", "parola"}
