import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from report_stores import EVIL, utterance
from synthetic import make_attribution, make_store

from fbk_xattn.analysis import correlate_targets, correlate_tokens, correlate_utterance
from fbk_xattn.analysis.quality import normalized_wer
from fbk_xattn.analysis.table import Setting
from fbk_xattn.errors import InputError
from fbk_xattn.report.html import build_page
from fbk_xattn.report.html.page import as_script
from fbk_xattn.report.html.rows import correlate_in_all_rows
from fbk_xattn.report.html.utterance import measure, merged_levels
from fbk_xattn.store import AttributionStore


class Texts(HTMLParser):
    """The texts of a page by tag, and its attributes."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.attributes, self.cells, self._open = [], [], [], []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes
        self._open.append(tag)

    def handle_data(self, data):
        self.cells.append((self._open[-1] if self._open else "", data.strip()))


def test_nothing_is_fetched_and_nothing_of_the_store_becomes_markup(report_store):
    html = build_page(report_store, report_store.ids()).html
    page = Texts(html)
    assert "img" not in page.tags
    assert "i" not in page.tags
    scripts = len(report_store.ids()) + 2  # with the settings and the program
    assert page.tags.count("script") == html.count("</script") == scripts
    for name, value in page.attributes:
        if name in ("src", "href", "action"):
            assert value.startswith(("#", "data:"))
        assert not name.startswith("on")
    assert html.count("http") == html.count("http-equiv")
    assert ("td", EVIL) in page.cells  # there it is, as text


def test_scripts_of_others_are_forbidden(report_store):
    html = build_page(report_store, ["a/plain"]).html
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', html)
    assert "default-src 'none'" in policy
    (allowed,) = re.findall(r"script-src ([^;]*)", policy)
    assert re.fullmatch(r"'sha256-[A-Za-z0-9+/]+='", allowed)


def test_json_between_script_tags_has_no_sign_of_html():
    text = as_script({"a": EVIL + "<!--\u2028"})
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text)["a"] == EVIL + "<!--\u2028"


def test_summary_has_the_numbers_of_the_other_commands(report_store):
    html = build_page(report_store, ["a/plain"]).html
    cells = [text for tag, text in Texts(html).cells if tag in ("td", "b")]
    for table in correlate_targets(report_store, absent_is_error=False).values():
        assert {f"{value:z.3f}" for value in table.mean.ravel()} <= set(cells)


def test_overview_has_the_scores_of_each_utterance(report_store):
    attribution = report_store.read("a/plain")
    found = measure(attribution, "2d-max", None).overview
    wer = normalized_wer([attribution.tgt_text], [attribution.hypothesis], "en")
    assert found.wer == wer == 25.0
    assert found.bleu is None
    for target in ("input", "encoder"):
        expected = correlate_utterance(attribution, target)[-1, -1]
        assert found.correlations[target] == pytest.approx(expected)


def test_a_hypothesis_of_one_word_has_a_bleu(rng):
    attribution = make_attribution(rng, hypothesis="paar", tgt_text="paar")
    assert measure(attribution, "2d-max", None).overview.bleu == pytest.approx(100.0)


def test_without_reference_there_is_no_score_and_the_page_says_so(rng, tmp_path):
    odd = [
        make_attribution(rng, id="st", tgt_text=""),
        make_attribution(rng, id="asr", tgt_lang="en", tgt_text="(noise)"),
    ]
    store = make_store(tmp_path / "s", odd)
    assert all(
        measure(each, "2d-max", None).overview.bleu is None
        and measure(each, "2d-max", None).overview.wer is None
        for each in odd
    )
    html = build_page(store, store.ids()).html
    assert "Not computed: " in html
    assert "1 of 2 references are empty" in html


def test_tokens_correlate_as_the_table_of_tokens_has_it(rng, tmp_path):
    store = make_store(tmp_path / "s", [utterance(rng, "u", S=12)])
    attribution = store.read("u")
    (table,) = correlate_tokens(store, [Setting("encoder")])
    maps = {"encoder": attribution.encoder_saliency[attribution.content].astype(float)}
    found = correlate_in_all_rows(attribution, maps)["tokens"]["encoder"]
    np.testing.assert_allclose(found.rows[:, -1], table.correlation)
    np.testing.assert_allclose(found.overall, correlate_utterance(attribution, "encoder"))


def test_words_correlate_as_joined_maps_do(rng, tmp_path):
    tokens = ("<lang:de>", "▁a", "b", "▁c", "▁d", "e", "f", "</s>")
    store = make_store(tmp_path / "s", [utterance(rng, "u", S=8, tokens=tokens)])
    attribution = store.read("u")
    maps = {"encoder": attribution.encoder_saliency[attribution.content].astype(float)}
    for joining in ("mean", "max"):
        (table,) = correlate_tokens(store, [Setting("encoder")], words=joining)
        found = correlate_in_all_rows(attribution, maps)[joining]["encoder"]
        assert found.rows.shape == (3, 4, 3)
        np.testing.assert_allclose(found.rows[:, -1], table.correlation)


def test_levels_of_the_same_segments_are_added_up(report_store):
    saliency = report_store.read("a/plain").input_saliency
    merged = merged_levels(saliency)
    assert (len(saliency.levels), len(merged)) == (3, 2)
    np.testing.assert_allclose(type(saliency)(tuple(merged)).dense(), saliency.dense(), rtol=1e-5)


@pytest.mark.parametrize(
    "without",
    [
        ["cross_attention"],
        ["input_saliency", "encoder_saliency"],
        ["input_saliency", "encoder_saliency", "cross_attention"],
    ],
)
def test_a_store_with_nothing_to_correlate_has_a_page(rng, tmp_path, without):
    store = make_store(tmp_path / "s", [make_attribution(rng, without=without)])
    html = build_page(store, store.ids()).html
    assert html.count("No utterance has both") == 2


def test_what_is_damaged_is_an_error(rng, tmp_path):
    store = make_store(tmp_path / "s", [make_attribution(rng, id="a"), make_attribution(rng)])
    store.file("a").write_bytes(b"half a file")
    with pytest.raises(InputError, match="unreadable"):
        build_page(store, ["a/1"])


def test_numbers_that_are_none_are_an_error(rng, tmp_path):
    attribution = make_attribution(rng, without=["cross_attention"])
    attribution.fbank[0, 0] = np.nan
    store = make_store(tmp_path / "s", [attribution])
    with pytest.raises(InputError, match="'a/1': fbank has NaN or infinite values"):
        build_page(store, store.ids())


def test_an_empty_store_is_an_error(tmp_path):
    store = make_store(tmp_path / "s", [])
    with pytest.raises(InputError, match="no utterance in this store"):
        build_page(store, [])


def test_provenance_is_that_of_the_store(rng, tmp_path):
    provenance = {"command": ["generate", "a b"], "versions": {"numpy": "2.4"}}
    with AttributionStore.create(tmp_path / "s", {"--num-masks": 7}, provenance) as store:
        store.write(make_attribution(rng))
    cells = {text for _, text in Texts(build_page(store, store.ids()).html).cells}
    assert {"--num-masks", "7", "generate 'a b'", "numpy", "2.4"} <= cells


def test_norm_weighted_cross_attention_is_called_so(rng, tmp_path):
    attribution = make_attribution(rng)
    name = "Norm-weighted cross-attention"
    for stored in ("weights", "norms"):
        path = tmp_path / stored
        store = make_store(path, [attribution], **{"--cross-attention": stored})
        html = build_page(store, store.ids()).html
        assert (name in html) == (stored == "norms")
        assert (f'"cross-attention":"{name.lower()}"' in html) == (stored == "norms")


@pytest.mark.parametrize(
    ("parameters", "unit"),
    [
        ({}, "KL divergence, nats"),
        ({"--scorer": "kl"}, "KL divergence, nats"),
        ({"--scorer": "probability"}, "probability lost"),
    ],
)
def test_the_legend_says_the_unit_of_saliency(rng, tmp_path, parameters, unit):
    store = make_store(tmp_path / "store", [make_attribution(rng)], **parameters)
    assert f"<span>saliency ({unit})</span>" in build_page(store, ["a/1"]).html


def test_tables_are_read_out_by_names_of_people(rng, tmp_path):
    pairs = {"a": "en", "b": "it"}
    explained = [make_attribution(rng, id=name, tgt_lang=lang) for name, lang in pairs.items()]
    page = build_page(make_store(tmp_path / "store", explained), ["a"]).html
    labels = re.findall(r'role="region" aria-label="([^"]*)"', page)
    assert labels[:3] == ["Input saliency", "Input saliency, ASR en", "Input saliency, ST en-it"]
    assert len(set(labels)) == len(labels)
