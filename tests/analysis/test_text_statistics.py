import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fbk_xattn.analysis.text_scores import TEXT_SCORES
from fbk_xattn.analysis.text_statistics import SUMMED_SCORES, statistics
from fbk_xattn.errors import InputError

WORDS = ("please", "enter", "your", "number", "now", "Linea,", "è")
REFERENCES = st.lists(st.sampled_from(WORDS), min_size=1, max_size=9).map(" ".join)
HYPOTHESES = st.lists(st.sampled_from(WORDS), max_size=9).map(" ".join)


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(list(SUMMED_SCORES)), st.lists(st.tuples(REFERENCES, HYPOTHESES), min_size=1)
)
def test_the_score_of_the_sums_is_the_score_of_the_corpus(name, pairs):
    references, hypotheses = zip(*pairs, strict=True)
    sums = statistics(name, references, [[text] for text in hypotheses]).sum(axis=0)
    expected = TEXT_SCORES[name].score(references, hypotheses)
    assert SUMMED_SCORES[name].score(sums)[0] == pytest.approx(expected)


def test_every_corpus_score_has_its_statistics():
    assert set(SUMMED_SCORES) == set(TEXT_SCORES)


def test_steps_keep_their_place():
    found = statistics("wer", ["a b", "c"], [["a b", "a", ""], ["c", "", "c d"]])
    assert found.tolist() == [[[0, 2], [1, 2], [2, 2]], [[0, 1], [1, 1], [1, 1]]]
    np.testing.assert_allclose(SUMMED_SCORES["wer"].score(found.sum(axis=0)), [0, 200 / 3, 100])


def test_an_unknown_score_is_named():
    with pytest.raises(InputError, match="score 'ter': expected one of wer"):
        statistics("ter", [], [])
