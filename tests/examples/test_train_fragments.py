"""Where words may be cut, and words made of the fragments."""

import random
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.prompts.train.fragments import (
    LETTERS,
    Fragments,
    halves,
    joined,
    quiet_place,
    stops,
)


@pytest.mark.parametrize(
    ("word", "cuts"),
    [
        ("digitare", ["di|gitare", "digi|tare"]),
        ("cancelletto", ["can|celletto", "cancelle|tto"]),
        ("questa", []),  # "s" is as quiet as the closure
        ("alphabet", ["alpha|bet"]),  # "ph" and "th" are no stops
        ("fourth", []),
        ("uno", []),
        ("la", []),
        ("accept", ["acce|pt"]),
        ("added", []),  # one letter would be left
        ("", []),
    ],
)
def test_words_are_cut_before_stops(word, cuts):
    assert [f"{word[:at]}|{word[at:]}" for _, at in stops([word])] == cuts


@given(st.lists(st.text(alphabet="aeiptcsrhà'", min_size=1, max_size=9), max_size=4))
def test_both_sides_of_a_cut_make_the_words_again(words):
    for number, at in stops(words):
        assert LETTERS <= at <= len(words[number]) - LETTERS
        assert joined(halves(words, number, at)) == " ".join(words)


def test_whole_parts_stay_apart():
    assert joined(["press", "one two", "digi+", "+ttata now", "can+", "+ter"]) == (
        "press one two digittata now canter"
    )


def test_the_quietest_place_of_a_window():
    energy = np.array([5.0, 1.0, 3.0, 0.5, 4.0])
    assert quiet_place(energy, (0, 3), 1.0) == 1
    assert quiet_place(energy, (0, 5), 1.0) == 3
    assert quiet_place(energy, (-3, 99), 1.0) == 3
    assert quiet_place(energy, (0, 3), 0.9) is None
    assert quiet_place(energy, (3, 3), 9.0) is None
    assert quiet_place(energy, (7, 9), 9.0) is None


def test_every_beginning_and_end_is_as_likely_as_others():
    texts = ["digi+", "press digi+", "digi+", "can+", "+tto", "+tare", "+tare now", "one"]
    fragments = Fragments([SimpleNamespace(text=text) for text in texts])
    assert fragments
    generator = random.Random(1)
    drawn = Counter()
    for _ in range(4000):
        first, second = fragments.draw(generator)
        drawn[first.text] += 1
        drawn[second.text.split()[0]] += 1
    assert abs(drawn["can+"] / 4000 - 1 / 2) < 0.03
    assert abs(drawn["press digi+"] / 4000 - 1 / 6) < 0.03
    assert abs(drawn["+tto"] / 4000 - 1 / 2) < 0.03


def test_half_of_the_words_are_known_ones_if_there_are_any():
    texts = ["press digi+", "can+", "aper+", "+tare now", "+to", "+tto"]
    fragments = Fragments(
        [SimpleNamespace(text=text) for text in texts], {"cantare", "canto", "press", "digi"}
    )
    generator = random.Random(1)
    drawn = Counter()
    for _ in range(6000):
        pair = [each.text for each in fragments.draw(generator)]
        drawn[joined([pair[0].split()[-1], pair[1].split()[0]])] += 1
    # Of nine words two are known.
    share = {word: n / drawn.total() for word, n in drawn.items()}
    assert len(share) == 9
    for word, expected in (
        ("cantare", 1 / 4 + 1 / 18),
        ("canto", 1 / 4 + 1 / 18),
        ("aperto", 1 / 18),
    ):
        assert abs(share[word] - expected) < 0.03
    unknown = Fragments([SimpleNamespace(text=text) for text in texts], {"else"})
    assert len({joined([e.text for e in unknown.draw(generator)]) for _ in range(500)}) == 9


@pytest.mark.parametrize("texts", [[], ["one"], ["digi+"], ["+tare", "one"]])
def test_no_words_of_one_side(texts):
    assert not Fragments([SimpleNamespace(text=text) for text in texts])
