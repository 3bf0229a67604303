"""The report as a person uses it, in headless Chromium."""

from __future__ import annotations

import colorsys
import re

import numpy as np
import pytest
from report_stores import EVIL, HEBREW, F, T, make_curves
from selenium.webdriver.common.keys import Keys

from fbk_xattn.analysis import correlate_utterance
from fbk_xattn.analysis.maps import input_cells, mean_cross_attention, saliency_map
from fbk_xattn.analysis.words import join_rows, word_slices
from fbk_xattn.cli.main import main

ABSENT = "\N{EN DASH}"
CANVASES = ("cells", "input", "encoder", "attention")


@pytest.fixture
def page(chromium, report_file):
    """The report, newly opened; afterwards nothing must have gone wrong or over the network."""
    chromium.open(report_file)
    yield chromium
    console, requests = chromium.logs()
    assert console == []
    assert requests == [report_file.as_uri()]


@pytest.fixture
def go(page):
    """Open an utterance by its button in the table."""

    def open_utterance(name):
        (button,) = [each for each in page.all("#table .open") if each.text.strip() == name]
        page.js("arguments[0].click()", button)
        page.wait(f"return view.utterance.id === {name!r} && view.buttons.length >= 0")
        page.wait(
            "return document.querySelector('tr.open button').textContent === view.utterance.id"
        )

    return open_utterance


def pictures(page):
    return {name: page.js(f"return element('{name}').toDataURL()") for name in CANVASES}


def choose(page, control, value):
    page.js(
        "const e = element(arguments[0]); e.value = arguments[1];"
        "e.dispatchEvent(new Event('change', {bubbles: true}))",
        control,
        value,
    )


def reading(page, frame, mel_bin):
    """Point at a cell and return what is read there."""
    box = page.js("return element('cells').getBoundingClientRect().toJSON()")
    page.js(
        "element('cells').dispatchEvent(new PointerEvent('pointermove', "
        "{clientX: arguments[0], clientY: arguments[1], bubbles: true}))",
        box["left"] + (frame + 0.5) / T * box["width"],
        box["bottom"] - (mel_bin + 0.5) / F * box["height"],
    )
    data = page.js("return {...element('readout').dataset}")
    return {name: float(value) for name, value in data.items()}


def test_the_first_view_is_there_and_quiet(page):
    assert page.driver.title == "store: attributions"
    assert page.one("#utterance-title").text == "a/plain"
    assert len(page.all(".token")) == 7
    assert page.screenshot("report-1280-light.png").stat().st_size > 50_000


def test_hovering_a_token_draws_its_maps(page):
    before = pictures(page)
    page.hover('.token[data-row="3"]')
    after = pictures(page)
    assert all(before[name] != after[name] for name in CANVASES)
    assert page.one(".token.shown .word").text == "▁the"
    assert "▁the" in page.one("#cells").get_attribute("aria-label")


def test_what_is_read_under_the_pointer_is_in_the_store(page, report_store, rng):
    attribution = report_store.read("a/plain")
    cells = input_cells(attribution)
    steps = {name: saliency_map(attribution, name) for name in ("input", "encoder")}
    weights = mean_cross_attention(attribution)
    for row in (0, 4):
        page.hover(f'.token[data-row="{row}"]')
        for frame, mel_bin in rng.integers(0, (T, F), (12, 2)).tolist():
            found = reading(page, frame, mel_bin)
            assert (found["frame"], found["bin"]) == (frame, mel_bin)
            assert abs(found["saliency"] - cells[row, frame, mel_bin]) <= found["error"] + 1e-6
            assert found["error"] < 0.01 * cells[row].max()
            spectrum = attribution.fbank
            half_a_step = np.ptp(spectrum) / 63 / 2
            assert abs(found["spectrogram"] - spectrum[frame, mel_bin]) <= half_a_step + 1e-6
            step = frame // attribution.frames_per_step
            for name, values in steps.items():
                within = np.ptp(values[row]) / 255 / 2 + 1e-6
                assert abs(found[name] - values[row, step]) <= within
            within = np.ptp(attribution.cross_attention[:, :, 1 + row]) / 255 / 2
            assert abs(found["attention"] - weights[row, step]) <= within


def test_a_drawn_cell_has_the_colour_of_its_value(page, report_store):
    from matplotlib import colormaps

    page.hover('.token[data-row="2"]')
    choose(page, "style", "saliency")
    cells = input_cells(report_store.read("a/plain"))[2]
    low, high = cells.min(), cells.max()
    points = [(3, 5), (77, 41), (149, 79), (0, 0)]
    pixels = page.js(
        "const [points, T, F] = arguments; const {width, height} = element('cells');"
        "const copy = new OffscreenCanvas(width, height).getContext('2d');"
        "copy.drawImage(element('cells'), 0, 0);"
        "const {data} = copy.getImageData(0, 0, width, height);"
        "return points.map(([frame, bin]) => {"
        "  const x = Math.floor((frame + .5) / T * width);"
        "  const y = Math.floor((1 - (bin + .5) / F) * height);"
        "  return [...data.slice((y * width + x) * 4, (y * width + x) * 4 + 3)]; })",
        points,
        T,
        F,
    )
    for (frame, mel_bin), pixel in zip(points, pixels, strict=True):
        share = (cells[frame, mel_bin] - low) / (high - low)
        expected = np.array(colormaps["magma"](share)[:3]) * 255
        np.testing.assert_allclose(pixel, expected, atol=6)  # one step of the colours
    shown = [float(page.one(f"#legend-{end}").text) for end in ("low", "high")]
    np.testing.assert_allclose(shown, [low, high], rtol=0.01, atol=1e-3)


def test_another_head_has_other_maps_and_correlations(page, report_store):
    attribution = report_store.read("a/plain")
    before = pictures(page)
    strips = page.js("return [...document.querySelectorAll('.r.encoder')].map(r => r.dataset.r)")
    choose(page, "layer", "1")
    choose(page, "head", "2")
    after = pictures(page)
    assert [name for name in CANVASES if before[name] != after[name]] == ["attention"]
    now = page.js("return [...document.querySelectorAll('.r.encoder')].map(r => r.dataset.r)")
    assert now != strips
    weights = mean_cross_attention(attribution, [1], [2])
    found = reading(page, 60, 3)
    within = np.ptp(attribution.cross_attention[1, 2, 1]) / 255 / 2 + 1e-6
    assert abs(found["attention"] - weights[0, 60 // attribution.frames_per_step]) <= within
    facts = page.one("#facts").text
    for target in ("input", "encoder"):
        expected = correlate_utterance(attribution, target)[1, 2]
        assert f"r {target} {expected:z.3f}" in facts


def test_rows_can_be_words(page, report_store):
    attribution = report_store.read("a/plain")
    words = word_slices(attribution.tokens[attribution.content])
    cells = input_cells(attribution)
    weights = mean_cross_attention(attribution)
    for joining in ("mean", "max"):
        choose(page, "rows", joining)
        texts = [button.text for button in page.all(".token .word")]
        assert texts == ["welcome", "to", "the", "directory"]
        page.hover('.token[data-row="3"]')
        found = reading(page, 100, 17)
        expected = join_rows(cells, words, joining)[3, 100, 17]
        assert abs(found["saliency"] - expected) <= found["error"] + 1e-6
        joined = join_rows(weights, words, joining)[3, 100 // attribution.frames_per_step]
        within = np.ptp(attribution.cross_attention[:, :, 5:8]) / 255 / 2
        assert abs(found["attention"] - joined) <= within


def test_the_map_of_all_rows(page, report_store):
    weights = mean_cross_attention(report_store.read("a/plain"))
    found = np.array(page.js("return view.all.map(row => [...row])"))
    assert found.shape == weights.shape
    np.testing.assert_allclose(found, weights, atol=np.ptp(weights) / 255)
    box = page.one("#all-map")
    before = page.js("return element('all-map').toDataURL()")
    choose(page, "all", "encoder")
    assert page.js("return element('all-map').toDataURL()") != before
    # A click on a row holds its token: the middle one of seven.
    page.js("arguments[0].scrollIntoView({block: 'center'})", box)
    box.click()
    assert page.one(".token[aria-pressed='true']").get_attribute("data-row") == "3"
    choose(page, "rows", "mean")
    assert page.js("return view.all.length") == 4


def test_one_scale_for_all_tokens(page, report_store):
    choose(page, "scale", "utterance")
    cells = input_cells(report_store.read("a/plain"))
    assert float(page.one("#legend-high").text) == pytest.approx(cells.max(), rel=0.01)


def test_the_table_sorts(page):
    def column(number):
        return [row.text for row in page.all(f"#table tbody tr > :nth-child({number})")]

    headers = page.all("#table thead th")
    header = headers[7]  # r input
    for direction in ("ascending", "descending"):
        header.find_element("css selector", "button").click()
        assert header.get_attribute("aria-sort") == direction
        texts = column(8)
        values = [float(text) for text in texts if text != ABSENT]
        assert len(values) == 5
        assert values == sorted(values, reverse=direction == "descending")
        assert texts[5:] == [ABSENT] * 3  # what is not there is last in either direction
    headers[0].find_element("css selector", "button").click()
    assert header.get_attribute("aria-sort") == "none"
    assert column(1)[0] == "a/plain"


def test_the_table_filters(page):
    page.one("#filter").send_keys("welcome en")
    assert [row.text for row in page.all("#table tbody tr:not([hidden]) .open")] == ["a/plain"]
    assert page.one("#shown").text == "1 of 8"
    page.one("#filter").clear()
    page.one("#filter").send_keys(" ")
    assert page.one("#shown").text == "8 of 8"


def test_previous_and_next_follow_the_table(page):
    assert not page.one("#previous").is_enabled()
    page.js("element('next').click()")
    page.wait("return view.utterance.id.startsWith('b/')")
    assert "#id=b%2F" in page.driver.current_url
    address = page.driver.current_url
    page.driver.get("about:blank")
    page.driver.get(address)
    page.wait("return document.documentElement.dataset.ready === 'true'")
    assert page.js("return view.utterance.id").startswith("b/")
    page.logs()  # of opening it twice
    page.driver.get(address.split("#")[0])


def test_audio_plays_and_the_cursor_moves(page):
    assert page.js("return element('cursor').hidden")
    page.js("document.querySelector('audio').play()")
    page.wait("return document.querySelector('audio').currentTime > 0.2")
    first = float(page.js("return element('cursor').style.getPropertyValue('--share')"))
    page.wait("return document.querySelector('audio').currentTime > 0.5")
    second = float(page.js("return element('cursor').style.getPropertyValue('--share')"))
    assert 0 < first < second <= 1
    assert page.one("#cursor").is_displayed()


def test_a_click_on_the_map_seeks(page):
    page.wait("return document.querySelector('audio').readyState > 0")
    page.js("document.querySelector('audio').play = () => {}; seek(0.75)")
    page.wait("return !element('cursor').hidden")
    assert float(page.js("return element('cursor').style.getPropertyValue('--share')")) == 0.5


def test_keys_alone_reach_everything(page):
    page.js("element('zoom').focus()")
    page.press(Keys.TAB)
    focused = "return document.activeElement.dataset.row"
    assert page.js(focused) == "0"
    page.press(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert page.js(focused) == "2"
    assert page.one(".token.shown").get_attribute("data-row") == "2"
    outline = page.js("return getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    page.press(Keys.ENTER)
    page.press(Keys.END)
    assert page.one(".token.shown").get_attribute("data-row") == "2"  # held
    assert page.one('.token[data-row="2"]').get_attribute("aria-pressed") == "true"
    page.press(Keys.ESCAPE, Keys.HOME)
    assert page.one(".token.shown").get_attribute("data-row") == "0"
    page.js("element('cells-plot').focus()")
    page.press(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_UP, Keys.ARROW_RIGHT)
    data = page.js("return {...element('readout').dataset}")
    assert (data["frame"], data["bin"]) == ("2", "1")


def test_a_held_token_stays_while_the_pointer_moves(page):
    page.one('.token[data-row="1"]').click()
    page.hover('.token[data-row="5"]')
    assert page.one(".token.shown").get_attribute("data-row") == "1"
    page.one('.token[data-row="1"]').click()
    page.hover('.token[data-row="5"]')
    assert page.one(".token.shown").get_attribute("data-row") == "5"


def test_markup_is_text(page, go, report_store):
    name = report_store.ids()[1]
    go(name)
    assert page.driver.title == "store: attributions"
    assert page.one("#utterance-title").text == name
    assert page.js("return element('hypothesis').textContent") == EVIL
    assert page.js("return document.querySelector('.token .word').textContent") == EVIL
    assert not page.all("main img, main i")
    assert page.js("return document.documentElement.scrollWidth") <= 1280


def test_hebrew_runs_from_right_to_left(page, go):
    go("c/hebrew")
    assert page.one("#hypothesis").text == HEBREW
    for selector in ("#hypothesis", "#tokens", "tr.open td.words"):
        direction = page.js(
            "return getComputedStyle(document.querySelector(arguments[0])).direction", selector
        )
        assert direction == "rtl"
    first, second = (page.one(f'.token[data-row="{row}"]').rect["x"] for row in (0, 1))
    assert first > second
    page.js("view.buttons[0].focus()")
    page.press(Keys.ARROW_LEFT)
    assert page.js("return document.activeElement.dataset.row") == "1"


def test_300_tokens(page, go):
    go("d/long")
    assert len(page.all(".token")) == 300
    page.hover('.token[data-row="299"]')
    assert page.one(".token.shown").get_attribute("data-row") == "299"
    assert page.one("#tokens").rect["height"] < 400
    assert page.js("return document.documentElement.scrollWidth") <= 1280
    assert "in none of the manifests" in page.one("#player").text


@pytest.mark.parametrize(
    ("name", "part", "flag", "correlations"),
    [
        ("e/no-encoder", "encoder", "--explain encoder", 1),
        ("f/no-input", "input", "--explain input", 1),
        ("g/no-attention", "attention", "--save-cross-attention", 0),
    ],
)
def test_absent_parts_say_so(page, go, name, part, flag, correlations):
    go(name)
    assert flag in page.one(f"#{part}-note").text
    assert not page.one(f"#{part}").is_displayed()
    others = [other for other in CANVASES[1:] if other != part]
    assert all(page.one(f"#{other}").is_displayed() for other in others)
    strips = [each for each in page.all('.token[data-row="0"] .r') if each.is_displayed()]
    assert len(strips) == correlations
    assert ("No correlations" in page.one("#tokens-about").text) == (correlations == 0)
    if part == "input":
        assert flag in page.one("#cells-title").text
        assert not page.one("#legend").is_displayed()
        assert "saliency" not in reading(page, 3, 3)


def test_an_empty_hypothesis_says_so(page, go):
    go("h/empty")
    assert "no token besides" in page.one("#tokens").text
    assert page.one("#hypothesis").text == "(empty)"
    assert page.one("#cells").is_displayed()


def test_light_and_dark(chromium, report_file):
    def lightness():
        colour = chromium.js("return getComputedStyle(document.body).backgroundColor")
        return colorsys.rgb_to_hls(*(int(n) / 255 for n in re.findall(r"\d+", colour)))[1]

    for dark in (False, True):
        chromium.open(report_file, dark=dark)
        assert (lightness() < 0.5) == dark
        chromium.screenshot(f"report-1280-{'dark' if dark else 'light'}.png")
        chromium.one("#theme").click()
        assert (lightness() < 0.5) != dark


@pytest.mark.parametrize("name", ["a/plain", "d/long"])
def test_400_pixels_are_enough(chromium, report_file, report_store, name):
    chromium.open(report_file, width=400, height=800)
    chromium.js("return goTo(arguments[0])", report_store.ids().index(name))
    chromium.wait(f"return view.utterance.id === {name!r}")
    assert chromium.js("return document.documentElement.scrollWidth") == 400
    wide = chromium.js(
        "return [...document.querySelectorAll('main select, main button, h2, canvas, .axis-y')]"
        ".filter(e => !e.closest('.scroll') && e.getBoundingClientRect().right > 400).length"
    )
    assert wide == 0
    chromium.screenshot(f"report-400-{name[0]}.png")
    console, _ = chromium.logs()
    assert console == []


def test_deletion_curves_and_words_at_first(chromium, report_store, tmp_path):
    folders = [str(make_curves(tmp_path / name, name)) for name in ("input", "encoder")]
    file = tmp_path / "r.html"
    flags = ["--deletion", *folders, "--words", "max", "--id", "a/plain"]
    assert main(["report", str(report_store.path), "-o", str(file), *flags]) == 0
    chromium.open(file)
    assert len(chromium.all(".chart polyline")) == 2
    assert "AUC" in chromium.one(".keys").text
    assert len(chromium.all(".token")) == 4
    assert chromium.one("#rows").get_attribute("value") == "max"
    assert "7 were left out" in chromium.one("#utterances").text
    assert "--audio" in chromium.one("#player").text
    assert chromium.logs()[0] == []


def test_a_report_of_a_model_of_this_project(chromium, data, corpus, checkpoint, tmp_path):
    from fairseq_runs import run_generate

    from fbk_xattn.store import AttributionStore

    explain = ("--save-cross-attention", "--explain", "input", "encoder", "--num-masks", "20")
    run_generate(data, checkpoint, "--attribution-dir", tmp_path / "out", *explain)
    file = tmp_path / "r.html"
    flags = ["--audio", "--manifest", str(corpus / "test.tsv")]
    assert main(["report", str(tmp_path / "out"), "-o", str(file), *flags]) == 0
    chromium.open(file)
    store = AttributionStore.open(tmp_path / "out")
    attribution = store.read(store.ids()[0])
    assert chromium.one("#utterance-title").text == attribution.id
    cells = input_cells(attribution)
    chromium.js("readCell(20, 30)")
    found = {k: float(v) for k, v in chromium.js("return {...element('readout').dataset}").items()}
    assert abs(found["saliency"] - cells[0, 20, 30]) <= found["error"] + 1e-6
    chromium.wait("return document.querySelector('audio').duration > 0")
    duration = chromium.js("return document.querySelector('audio').duration")
    assert duration == pytest.approx(len(attribution.fbank) / 100, abs=0.1)
    assert chromium.logs()[0] == []
