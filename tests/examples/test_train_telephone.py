"""The grammar of telephone sentences: different, repeatable, clean, and right in both languages."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from examples.prompts.train import telephone
from examples.prompts.train.telephone import SENTENCES, telephone_sentences
from fbk_xattn.data.prompts_texts import clean_text, number_words
from fbk_xattn.errors import InputError

NUMBERS = {number_words(number, "it"): number for number in range(3000)}
ENGLISH = {word for number in range(3000) for word in number_words(number, "en").split()}
FAMILIAR = r"\b(premi|hai|componi|tu|tuo|tua|tuoi|tue)\b"
FORMAL = r"\b(suo|sua|suoi|sue|lei|prema|desidera|può|vuole|deve|conosce)\b"
MISTAKES = (
    r"\b(il|lo|la|del|al|dal|nel|sul|quel|quella|della|alla|nella) (?=[aeiou]\w)",
    r"\bun'? ?(nuova|password|casella)\b",
    r"\buna (nuovo|numero|codice|interno|pin|prefisso|nome)\b",
    r"\bl' ",
    r"^(spiacente )?(la|questa) [a-z' ]+ è (ora |al momento )?\w+[dt]o\b",
    r"^(spiacente )?(il|l'|questo) ?[a-z' ]+ è (ora |al momento )?\w+[aiu]ta\b",
    r"\bstato \w+a\b|\bstata \w+o\b",
    r"\b(siete|avete|premete|digitate|vostr[oaie])\b",
    r"\bprego (premi|prema|componi|digiti|inserisca)\b",
    r"\b(inserisca|immetta)\b.*\b(premere|attendere)\b",
)


@pytest.fixture(scope="module")
def sentences():
    return telephone_sentences(12_000, 1)


def test_different_and_as_many_as_asked_for(sentences):
    assert len(sentences) == len(set(sentences)) == 12_000
    assert sentences[: len(SENTENCES)] == list(SENTENCES)


@given(st.integers(0, 600), st.integers(0, 2**32))
@settings(max_examples=15, deadline=None)
def test_the_seed_alone_decides(number, seed):
    found = telephone_sentences(number, seed)
    assert len(set(found)) == number
    assert found == telephone_sentences(700, seed)[:number]


def test_other_seeds_give_others():
    assert telephone_sentences(500, 1) != telephone_sentences(500, 2)


def test_clean_already(sentences):
    for english, italian in (*sentences, *SENTENCES):
        assert clean_text(english, "en") == english
        assert clean_text(italian, "it") == italian


def test_both_sides_say_the_same_numbers(sentences):
    for english, italian in sentences:
        words = [word.removeprefix("l'") for word in italian.split()]
        spelled = [number_words(NUMBERS[word], "en") for word in words if word in NUMBERS]
        said = [word for word in english.split() if word in ENGLISH]
        assert " ".join(said) == " ".join(spelled), (english, italian)


def test_both_sides_are_about_as_long(sentences):
    for english, italian in sentences:
        words = [word for word in english.split() if word not in ENGLISH]
        parole = [word for word in italian.split() if word not in NUMBERS]
        assert len(words) <= 2 * len(parole) + 2, (english, italian)
        assert len(parole) <= 2 * len(words) + 2, (english, italian)


@pytest.mark.parametrize("mistake", MISTAKES)
def test_no_mistakes_of_agreement_in_italian(sentences, mistake):
    assert [italian for _, italian in sentences if re.search(mistake, italian)] == []


def test_no_sentence_is_both_formal_and_familiar(sentences):
    assert [s for _, s in sentences if re.search(FAMILIAR, s) and re.search(FORMAL, s)] == []


@pytest.mark.parametrize(
    "pair",
    [
        ("call forwarding has been activated", "l'inoltro di chiamata è stato attivato"),
        ("the password has been changed", "la password è stata cambiata"),
        ("please enter a new password", "prego digitare una nuova password"),
        ("please enter a new extension", "prego digitare un nuovo interno"),
        ("if you agree press one", "se è d'accordo premere uno"),
        ("message received on march eight", "messaggio ricevuto l'otto marzo"),
        ("message received on march eleven", "messaggio ricevuto l'undici marzo"),
        ("message received on march twelve", "messaggio ricevuto il dodici marzo"),
        ("that is not a valid extension", "quell'interno non è valido"),
    ],
)
def test_some_sentences_are_among_those_it_makes(many, pair):
    assert pair in many


@pytest.fixture(scope="module")
def many():
    return set(telephone_sentences(60_000, 3))


def test_alternatives_are_under_another_key(many):
    menus = [re.findall(r" press (.+?) otherwise press (\w+) ", english) for english, _ in many]
    found = [keys for menu in menus for keys in menu]
    assert len(found) > 100
    assert [keys for keys in found if keys[0] == keys[1]] == []


@pytest.mark.parametrize("number", [len(SENTENCES) + 4, 10**12])
def test_more_than_the_grammar_makes_is_one_line(monkeypatch, number):
    def three(generator):
        return generator.choice((("a", "a"), ("b", "b"), ("c", "c")))

    monkeypatch.setattr(telephone, "TEMPLATES", {three: 1.0})
    most = len(SENTENCES) + 3
    assert len(telephone_sentences(most, 1)) == most
    with pytest.raises(InputError, match=rf"^{number} .*expected at most about {most}: "):
        telephone_sentences(number, 1)


def test_a_negative_number_is_one_line():
    with pytest.raises(InputError, match="-1 telephone sentences, expected 0 or more"):
        telephone_sentences(-1, 1)
