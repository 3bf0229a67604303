import warnings

import numpy as np
import pytest
from drawn import assert_tidy, written
from hypothesis import given
from hypothesis import strategies as st
from synthetic import make_attribution

from fbk_xattn.analysis import mean_std
from fbk_xattn.errors import InputError
from fbk_xattn.report.figures import WIDTHS, draw_spectrogram
from fbk_xattn.report.figures.mel import bin_centres, bin_position, hertz_of, mel_of


def rows(figure):
    """Return the axes with a map over the spectrogram, column by column."""
    return [axes for axes in figure.axes if len(axes.images) == 2]


def labels(axes):
    return [text.get_text() for text in axes.texts]


def test_mel_scale_against_numbers_worked_out_by_hand():
    # 1127 ln(1 + 1000 / 700) = 999.99; 20 Hz and 8,000 Hz are 31.75 and 2840.04 mel.
    assert mel_of(1000.0) == pytest.approx(999.99, abs=0.01)
    assert mel_of([20.0, 8000.0]).tolist() == pytest.approx([31.75, 2840.04], abs=0.01)
    step = (2840.04 - 31.75) / 81
    centres = bin_centres(80)
    assert centres[0] == pytest.approx(700 * (np.exp((31.75 + step) / 1127) - 1), abs=0.01)
    assert np.diff(mel_of(centres)) == pytest.approx(step, abs=0.001)


def test_bins_peak_where_the_filterbank_hears_a_tone():
    from fbk_xattn.data.features import SAMPLE_RATE, fbank

    for number in (20, 40, 70):
        tone = np.sin(2 * np.pi * bin_centres(80)[number] / SAMPLE_RATE * np.arange(8000))
        features = fbank((8000 * tone).astype(np.float32))
        assert (features.argmax(axis=1) == number).all()


@given(st.floats(20, 8000), st.integers(1, 200))
def test_position_is_the_inverse_of_the_centres(hertz, n_bins):
    assert hertz_of(mel_of(hertz)) == pytest.approx(hertz)
    np.testing.assert_allclose(
        bin_position(bin_centres(n_bins), n_bins), np.arange(n_bins), atol=1e-6
    )


def test_rows_hold_the_full_resolution(rng):
    attribution = make_attribution(rng, T=60, F=80, tokens=("<t>", *"abcde", "</s>"))
    figure = draw_spectrogram(attribution)
    dense = mean_std(attribution.input_saliency.dense(attribution.content))
    drawn = rows(figure)
    assert [labels(axes)[0] for axes in drawn] == list("abcde")
    for axes, values in zip(drawn, dense, strict=True):
        np.testing.assert_allclose(np.asarray(axes.images[1].get_array()), values.T, rtol=1e-5)
        assert axes.images[1].get_extent() == pytest.approx((0, 0.6, -0.5, 79.5))
        assert axes.get_xlim() == pytest.approx((0, 0.6))
        assert axes.images[1].get_clim() == drawn[0].images[1].get_clim()
        # Low frequencies are below, and numbers are where their bins are.
        assert axes.images[1].origin == "lower"
        numbers = [label.get_text() for label in axes.get_yticklabels()]
        ticks = dict(zip(numbers, axes.get_yticks(), strict=True))
        assert ticks["1000"] == pytest.approx(bin_position(1000, 80))
        assert 0 < ticks["200"] < ticks["1000"] < ticks["4000"] < 79
    (alone,) = [axes for axes in figure.axes if labels(axes)[:1] == ["spectrogram"]]
    np.testing.assert_array_equal(
        np.argsort(np.asarray(alone.images[0].get_array())[3], kind="stable")[-1:],
        np.asarray(alone.images[0].get_array())[3].argmax(),
    )
    assert "Hz" in labels(alone)[1]


def test_the_loudest_cells_are_the_darkest(rng):
    fbank = np.linspace(-1, 1, 20 * 10).reshape(20, 10).astype(np.float32)
    figure = draw_spectrogram(make_attribution(rng, T=20, F=10, fbank=fbank))
    shade = np.asarray(figure.axes[0].images[0].get_array())
    assert shade.shape == (10, 20)
    assert shade[-1, -1] == 1
    assert shade[0, 0] == 0
    assert figure.axes[0].images[0].get_cmap()(1.0)[:3] == (0, 0, 0)


def test_tokens_can_be_chosen_and_joined_to_words(rng):
    tokens = ("<lang:de>", "▁ein", "▁Wo", "rt", "▁es", "▁ist", "</s>")
    attribution = make_attribution(rng, tokens=tokens)
    drawn = rows(draw_spectrogram(attribution, rows=[0, 2]))
    assert [labels(axes)[0] for axes in drawn] == ["_ein", "rt"]
    dense = attribution.input_saliency.dense(attribution.content)
    (word,) = rows(draw_spectrogram(attribution, words="max", rows=[1]))
    assert labels(word)[0] == "Wort"
    expected = mean_std(dense[1:3].max(axis=0)[None])[0]
    np.testing.assert_allclose(np.asarray(word.images[1].get_array()), expected.T, rtol=1e-5)


@pytest.mark.parametrize("width", WIDTHS.values())
def test_sixty_tokens_and_thirty_seconds_are_tidy(rng, width):
    tokens = ["▁internationalisation", "▁W" * 6, "c", "d" * 60, "▁Żółć", "gy"] * 10
    attribution = make_attribution(
        rng, S=62, T=3000, F=4, tokens=("<lang:de>", *tokens, "</s>"), frames_per_step=8
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = draw_spectrogram(attribution, width=width)
        assert_tidy(figure)
    assert len(rows(figure)) == 60
    assert len({axes.get_position().x0 for axes in rows(figure)}) == (2 if width > 5 else 1)


def test_a_constant_map_is_drawn(rng):
    from synthetic import as_segments

    flat = as_segments(np.ones((7, 22, 5)))
    figure = draw_spectrogram(make_attribution(rng, input_saliency=flat), header=False)
    assert "Reference" not in written(figure)
    assert np.asarray(rows(figure)[0].images[1].get_array()).max() == 0


@pytest.mark.parametrize(
    ("fields", "chosen", "message"),
    [
        ({"S": 2}, {}, "nothing to plot, expected a token besides"),
        ({"without": ["input_saliency"]}, {}, "saved without input saliency, expected a run"),
        ({}, {"rows": [5]}, "token 6: expected 1 to 5, as many as utterance 'a/1' has"),
        ({}, {"rows": [5], "words": "max"}, "word 6: expected 1 to 5"),
        ({}, {"rows": []}, "no token chosen"),
        ({}, {"words": "sum"}, "joining 'sum'"),
    ],
)
def test_wrong_input_is_input_error(rng, fields, chosen, message):
    with pytest.raises(InputError, match=message):
        draw_spectrogram(make_attribution(rng, **fields), **chosen)
