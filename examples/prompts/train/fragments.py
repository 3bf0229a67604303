"""Words cut at the closures of their stops, for words that no recording has."""

from __future__ import annotations

import itertools
import random
from collections import defaultdict
from collections.abc import Collection, Sequence
from typing import Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

# At the end or the beginning of a text: its last or first word is cut there.
CUT = "+"
# Before these the mouth is closed, so there is a quiet place however fast the speech.
STOPS = frozenset("ptckqbdg")
# Letters that a cut has on both sides at least, of its word.
LETTERS = 2
KNOWN_SHARE = 0.5  # of the words made of fragments, where there are known ones


class Text(Protocol):
    """What has words."""

    @property
    def text(self) -> str:
        """The words."""


T = TypeVar("T", bound=Text)


def stops(words: Sequence[str]) -> list[tuple[int, int]]:
    """Return where words may be cut: before a stop, which no other stop and no "s" is before.

    Args:
        words: In lower case.

    Returns:
        Indices of a word and of the letter that begins its second fragment.
    """
    return [
        (number, at)
        for number, word in enumerate(words)
        for at in range(LETTERS, len(word) - LETTERS + 1)
        if word[at] in STOPS
        and word[at - 1] not in STOPS | {"s"}
        and word[at : at + 2] not in ("ph", "th")
    ]


def quiet_place(energy: NDArray[np.floating], window: tuple[int, int], quiet: float) -> int | None:
    """Return the quietest place of a window, ``None`` if it is not quiet.

    Args:
        energy: ``(n,)`` of the recording.
        window: First place, and the one after the last.
        quiet: Energy at most.
    """
    low, high = max(0, window[0]), min(len(energy), window[1])
    if low >= high:
        return None
    quietest = low + int(energy[low:high].argmin())
    return quietest if energy[quietest] <= quiet else None


def halves(words: Sequence[str], number: int, at: int) -> tuple[str, str]:
    """Return the texts before and after a cut.

    Args:
        words: Of a part.
        number: Index of the word that is cut.
        at: Index of the letter that begins its second fragment.
    """
    word = words[number]
    before, after = [*words[:number], word[:at] + CUT], [CUT + word[at:], *words[number + 1 :]]
    return " ".join(before), " ".join(after)


def joined(texts: Sequence[str]) -> str:
    """Return the text of parts and fragments that follow each other."""
    return " ".join(texts).replace(f"{CUT} {CUT}", "")


class Fragments(Generic[T]):
    """Fragments by what is left of the cut word, so that rare ones are as likely as others."""

    def __init__(self, parts: Sequence[T], known: Collection[str] = ()) -> None:
        """Take the fragments among parts.

        Args:
            parts: Of one speaker.
            known: Words of the language, which :data:`KNOWN_SHARE` of the words are.
        """
        self._first: dict[str, list[T]] = defaultdict(list)
        self._second: dict[str, list[T]] = defaultdict(list)
        for part in parts:
            if part.text.endswith(CUT):
                self._first[part.text.split()[-1]].append(part)
            if part.text.startswith(CUT):
                self._second[part.text.split()[0]].append(part)
        self._keys = sorted(self._first), sorted(self._second)
        pairs = itertools.product(*self._keys)
        self._known = [pair for pair in pairs if joined(pair) in known] if known else []

    def __bool__(self) -> bool:
        """Whether there are fragments to make a word of."""
        return all(self._keys)

    def draw(self, generator: random.Random) -> list[T]:
        """Return two fragments that make a word.

        Args:
            generator: Of all choices.
        """
        if self._known and generator.random() < KNOWN_SHARE:
            first, second = generator.choice(self._known)
        else:
            first, second = (generator.choice(keys) for keys in self._keys)
        return [generator.choice(self._first[first]), generator.choice(self._second[second])]
