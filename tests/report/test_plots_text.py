import pytest
from hypothesis import given
from hypothesis import strategies as st

from fbk_xattn.report.figures.style import drawing
from fbk_xattn.report.figures.text import row_labels, shortened, text_width, wrapped

TEXTS = st.text(st.sampled_from("ab-iW ößЖش"), max_size=40).map(lambda text: " ".join(text.split()))


@pytest.fixture(autouse=True, scope="module")
def _settings():
    with drawing():
        yield


@given(TEXTS, st.floats(0.3, 2.0))
def test_wrapped_lines_fit_and_lose_nothing(text, inches):
    lines = wrapped(text, inches, 7)
    assert "".join("".join(lines).split()) == "".join(text.split())
    for line in lines:
        assert len(line) == 1 or text_width(line, 7) <= inches + 1e-9


@given(TEXTS, st.floats(0.15, 2.0))
def test_shortened_fits_and_begins_as_the_text(text, inches):
    short = shortened(text, inches, 7)
    assert text_width(short, 7) <= inches
    assert text.startswith(short.removesuffix("…"))
    assert short == text or short.endswith("…")


def test_lines_break_at_spaces_and_after_hyphens_of_words():
    assert wrapped("Encoder-output saliency", text_width("output saliency", 7), 7) == [
        "Encoder-",
        "output saliency",
    ]
    assert wrapped("aggregated 2d-max", text_width("aggregated 2d-", 7), 7) == [
        "aggregated",
        "2d-max",
    ]


def test_labels():
    tokens = ["▁a", "b", "▁", "c d", "▁"]
    assert row_labels(tokens) == ["_a", "b", "_", "c d", "_"]
    assert row_labels(tokens, words=True) == ["ab", "c d", "_"]
    assert row_labels([]) == []
