"""Words found in recordings: CTC paths, cuts at quiet places, and fragments of words."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from examples.prompts.train import alignment
from examples.prompts.train.alignment import (
    MARGIN,
    PER_LETTER,
    STEP,
    Part,
    ctc_path,
    fragments,
    parts,
)
from fbk_xattn.data.features import SAMPLE_RATE

# --- Paths


def collapsed(path, blank):
    """Return the tokens of a path by CTC's definition."""
    return [label for label, _ in itertools.groupby(path) if label != blank]


def best_paths(scores, tokens, blank):
    """Return the probability of the best alignment, and all alignments that have it."""
    n_steps, n_labels = scores.shape
    found = {
        path: sum(scores[step, label] for step, label in enumerate(path))
        for path in itertools.product(range(n_labels), repeat=n_steps)
        if collapsed(path, blank) == list(tokens)
    }
    best = max(found.values(), default=None)
    return best, [path for path, score in found.items() if best - score < 1e-9]


def spans_of(path, blank):
    """Return first and last step of each token of a path."""
    spans, step = [], 0
    for label, steps in itertools.groupby(path):
        n = len(list(steps))
        if label != blank:
            spans.append([step, step + n - 1])
        step += n
    return spans


def log_probabilities(seed, n_steps, n_labels):
    logits = torch.randn(n_steps, n_labels, generator=torch.Generator().manual_seed(seed))
    return (3 * logits).log_softmax(-1).numpy()


@given(
    st.integers(0, 2**31),
    st.integers(1, 6),
    st.lists(st.integers(0, 2), min_size=1, max_size=4),
    st.sampled_from([0, 3]),
)
@settings(deadline=None, max_examples=80)
def test_the_path_is_the_best_of_all(seed, n_steps, tokens, blank):
    if blank == 0:
        tokens = [token + 1 for token in tokens]
    scores = log_probabilities(seed, n_steps, 4)
    best, paths = best_paths(scores, tokens, blank)
    if not paths:
        with pytest.raises(ValueError, match=f"{len(tokens)} tokens, .* {n_steps} steps"):
            ctc_path(scores, tokens, blank)
        return
    assert np.isfinite(best)
    spans = ctc_path(scores, tokens, blank)
    assert spans.shape == (len(tokens), 2)
    assert spans.tolist() in [spans_of(path, blank) for path in paths]


def scores_of(path, n_labels=4):
    """Return scores that are for one path."""
    scores = np.full((len(path), n_labels), -9.0, np.float32)
    scores[range(len(path)), path] = -0.1
    return scores


def test_between_repeated_tokens_is_a_blank():
    # Nothing but ones is likely; still a blank has to be between them, where it costs least.
    scores = scores_of([1, 1, 1, 1, 1])
    scores[3, 0] = -5.0
    assert ctc_path(scores, [1, 1], 0).tolist() == [[0, 2], [4, 4]]
    assert ctc_path(scores, [1, 1, 1], 0).tolist() == [[0, 0], [2, 2], [4, 4]]
    # Between others none has to be.
    assert ctc_path(scores_of([1, 1, 2]), [1, 2], 0).tolist() == [[0, 1], [2, 2]]


def test_blanks_around_are_no_tokens():
    path = [3, 3, 0, 0, 3, 1, 3, 3]
    assert ctc_path(scores_of(path), [0, 1], 3).tolist() == [[2, 3], [5, 5]]


@pytest.mark.parametrize("tokens", [[1, 2, 1], [1, 1], [2, 1, 1, 2]])
def test_too_many_tokens(tokens):
    with pytest.raises(ValueError, match=rf"{len(tokens)} tokens, expected some that fit 2 steps"):
        ctc_path(scores_of([1, 1]), tokens, 0)


# --- Parts


def tones(*lengths, seed=1):
    """Return tones and, where a length is negative, near silence; lengths in seconds."""
    rng = np.random.default_rng(seed)
    samples = []
    for seconds in lengths:
        n = round(abs(seconds) * SAMPLE_RATE)
        noise = 3 * rng.standard_normal(n)
        tone = 4000 * np.sin(2 * np.pi * 300 * np.arange(n) / SAMPLE_RATE)
        samples.append(noise + (tone if seconds > 0 else 0))
    return np.concatenate(samples).astype(np.float32)


def spans(*seconds):
    """Return steps of tokens heard at these times."""
    return np.array([[round(time / STEP)] * 2 for time in seconds])


def test_cuts_are_at_quiet_places_between_words():
    # 0.4 to 0.8, silence to 1.0, 1.0 to 1.5, silence to 1.6, 1.6 to 2.2, silence.
    samples = tones(-0.4, 0.4, -0.2, 0.5, -0.1, 0.6, -0.5)
    words = [("press", 0), ("hundred", 1), ("please", 2)]
    found = parts(samples, spans(0.6, 1.24, 1.8), words)
    assert [part.text for part in found] == ["press", "hundred", "please"]
    # What is silent before and after is left out, but for a margin.
    assert found[0].start == pytest.approx(0.4 - MARGIN)
    assert found[-1].end == pytest.approx(2.2 + MARGIN)
    first, second = found[0].end, found[1].end
    assert 0.8 <= first == found[1].start < 1.0
    assert 1.5 <= second == found[2].start < 1.6
    # At the quietest place of all.
    samples[round(0.9 * SAMPLE_RATE) : round(0.91 * SAMPLE_RATE)] = 0
    assert parts(samples, spans(0.6, 1.24, 1.8), words)[0].end == pytest.approx(0.9)


def test_words_without_a_quiet_place_between_stay_together():
    samples = tones(-0.3, 0.8, -0.2, 0.6)
    found = parts(samples, spans(0.4, 0.8, 1.5), [("hold", 0), ("the", 1), ("number", 2)])
    assert [part.text for part in found] == ["hold the", "number"]
    assert 1.1 <= found[0].end < 1.3


def test_words_of_several_tokens_are_cut_between_the_last_and_the_first():
    # A gap within "grazie" is no place to cut.
    samples = tones(0.3, -0.1, 0.3, -0.2, 0.5)
    found = parts(samples, spans(0.12, 0.56, 1.12), [("grazie", 0), ("mille", 2)])
    assert [part.text for part in found] == ["grazie", "mille"]
    assert 0.7 <= found[0].end < 0.9


def test_parts_of_an_implausible_duration_are_left_out():
    samples = tones(0.5, -0.2, 0.5, -0.2, 0.5)
    times = spans(0.2, 0.92, 1.64)
    for text in ("forty", "one hundred", "one"):
        found = parts(samples, times, [("three", 0), (text, 1), ("seven", 2)])
        middle = [text] if len(text) > 3 else []
        assert [part.text for part in found] == ["three", *middle, "seven"]
    # One of 5 letters and 0.1 s.
    assert parts(tones(0.1), spans(0.04), [("three", 0)]) == []


def test_words_without_time_are_joined_with_those_beside_them():
    # "hundred" is put into the silence after "three", but said with it or with "seven".
    samples = tones(0.4, -0.2, 0.6, -0.2, 0.5, -0.2, 0.4)
    samples[round(0.45 * SAMPLE_RATE) : round(0.46 * SAMPLE_RATE)] = 0
    samples[round(0.5 * SAMPLE_RATE) : round(0.51 * SAMPLE_RATE)] = 0
    words = [("three", 0), ("hundred", 1), ("seven", 2), ("eight", 3), ("four", 4)]
    found = parts(samples, spans(0.2, 0.48, 1.0, 1.64, 2.28), words)
    assert [part.text for part in found] == ["three hundred seven", "eight", "four"]
    assert found[0].start == 0
    assert 1.2 <= found[0].end < 1.4
    # No such thing: as many words as places to cut.
    words[1] = ("and", 1)
    found = parts(samples, spans(0.2, 0.8, 1.0, 1.64, 2.28), words)
    assert found[0].text == "three"


def test_first_words_are_not_looked_for_in_the_silence_before():
    samples = tones(-0.5, 0.9, -0.2, 0.5)
    found = parts(samples, spans(0.08, 0.6, 1.8), [("if", 0), ("this is", 1), ("please", 2)])
    assert [part.text for part in found] == ["if this is", "please"]
    assert found[0].start == pytest.approx(0.5 - MARGIN)
    # However quiet it is: the gap after the first word is where to cut.
    samples = tones(-0.5, 0.4, -0.1, 0.7)
    samples[: round(0.4 * SAMPLE_RATE)] = 0
    found = parts(samples, spans(0.08, 1.4), [("press", 0), ("please", 1)])
    assert [part.text for part in found] == ["press", "please"]
    assert 0.9 <= found[0].end < 1.0


def test_a_cut_is_after_the_last_step_of_a_word():
    samples = tones(0.3, -0.2, 0.3, -0.1, 0.6)
    samples[round(0.4 * SAMPLE_RATE) : round(0.41 * SAMPLE_RATE)] = 0
    steps = np.array([[2, 17], [27, 28]])  # the first until 0.72 s
    found = parts(samples, steps, [("grazie", 0), ("mille", 1)])
    assert 0.8 <= found[0].end < 0.9


@pytest.mark.parametrize(
    "samples",
    [
        np.zeros(SAMPLE_RATE, np.float32),
        np.zeros(0, np.float32),
        np.ones(100, np.float32),
    ],
)
def test_nothing_is_found_where_nothing_is_heard(samples):
    assert parts(samples, spans(0.04, 0.08), [("one", 0), ("two", 1)]) == []


@given(
    st.lists(st.tuples(st.booleans(), st.floats(0.02, 0.5)), min_size=1, max_size=8),
    st.lists(st.integers(0, 80), min_size=1, max_size=6),
)
@example([(False, 0.3359375), (True, 0.125), (False, 0.0234375)], [0])  # 0.04 s a letter exactly
@settings(deadline=None)
def test_parts_are_in_order_within_the_recording(pieces, steps):
    samples = tones(*(seconds if loud else -seconds for loud, seconds in pieces))
    steps = np.sort(steps)
    words = [(f"word{number}", number) for number in range(len(steps))]
    found = parts(samples, np.stack([steps, steps], 1), words)
    before, said = 0.0, []
    for part in found:
        assert before <= part.start < part.end <= len(samples) / SAMPLE_RATE + 1e-9
        per_letter = (part.end - part.start) / len(part.text)
        assert PER_LETTER[0] - 1e-9 <= per_letter <= PER_LETTER[1] + 1e-9
        before = part.end
        said += part.text.split()
    assert said == [text for text, _ in words if text in said]


# --- Fragments


def letters_of(words):
    """Return labels of letters, and where each word begins, as a model of letters has them."""
    symbols, firsts = [], []
    for word in words:
        firsts.append(len(symbols) + 1)
        symbols += ["_", *word]
    return [ord(symbol) % 97 for symbol in symbols], firsts


def heard(words, times, n_steps):
    """Return scores for which the letters are heard at these times, evenly between."""
    labels, firsts = letters_of(words)
    scores = np.full((n_steps, 98), -9.0, np.float32)
    scores[:, 97] = -1.0
    for first, word, (start, end) in zip(firsts, words, times, strict=True):
        steps = np.linspace(start / STEP, end / STEP, len(word) + 1).round().astype(int)
        for step, label in zip(steps, labels[first - 1 : first + len(word)], strict=True):
            scores[step] = -9.0
            scores[step, label] = -0.1
    return scores, (labels, firsts)


def test_words_are_cut_at_quiet_places_before_stops():
    # "press digi-tare now", with a closure at 1.2 s.
    samples = tones(0.5, -0.1, 0.6, -0.08, 0.5, -0.1, 0.5)
    times = [(0.08, 0.4), (0.6, 1.64), (1.88, 2.2)]
    part = Part("press digitare now", 0.0, 2.38)
    scores, letters = heard(part.text.split(), times, 60)
    first, second = fragments(samples, scores, part, letters, 97)
    assert (first.text, second.text) == ("press digi+", "+tare now")
    assert first.start == part.start
    assert 1.2 <= first.end == second.start < 1.28
    assert second.end == part.end
    # Nothing where there is no closure.
    assert fragments(tones(2.38), scores, part, letters, 97) == []
    # Nor where the letters do not fit.
    assert fragments(samples, scores[:9], part, letters, 97) == []


def test_a_part_is_cut_within_its_own_time():
    samples = np.concatenate([tones(1.0), tones(0.5, -0.08, 0.5), tones(1.0)])
    part = Part("digitare", 1.0, 2.08)
    scores, letters = heard(["digitare"], [(1.0, 1.88)], 80)
    first, second = fragments(samples, scores, part, letters, 97)
    assert (first.text, second.text) == ("digi+", "+tare")
    assert (first.start, second.end) == (1.0, 2.08)
    assert 1.5 <= first.end < 1.58


def test_fragments_of_an_implausible_duration_are_left_out(monkeypatch):
    samples = tones(0.5, -0.08, 0.5)
    scores, letters = heard(["digitare"], [(0.0, 0.88)], 40)
    part = Part("digitare", 0.0, 1.08)
    assert len(fragments(samples, scores, part, letters, 97)) == 2
    monkeypatch.setattr(alignment, "PER_LETTER", (0.04, 0.12))  # "digi" has 0.125 s a letter
    assert fragments(samples, scores, part, letters, 97) == []
