import sys
from types import SimpleNamespace

import pytest
from synthetic import make_attribution, make_store

from fbk_xattn.analysis.quality import (
    BLEU,
    COMET,
    WER,
    comet_scorer,
    normalized_wer,
    quality,
    whisper_normalizer,
)
from fbk_xattn.errors import InputError
from fbk_xattn.store import AttributionStore

PARTS = ("cross_attention", "encoder_saliency", "input_saliency")


def utterance(rng, name, hypothesis, reference, pair=("en", "en"), source="some words"):
    return make_attribution(
        rng, id=name, hypothesis=hypothesis, tgt_text=reference, src_text=source, src_lang=pair[0],
        tgt_lang=pair[1], without=PARTS,
    )  # fmt: skip


@pytest.fixture
def store(rng, tmp_path):
    return make_store(
        tmp_path,
        [
            utterance(rng, "a", "twenty one colors", "Twenty-one colours!"),
            utterance(rng, "b", "hello there", "Hello, you."),
            utterance(rng, "c", "la casa è molto bella", "la casa è molto bella", ("en", "it")),
            utterance(rng, "d", "ciao a tutti", "Ciao a te", ("it", "it")),
        ],
    )


def test_each_language_pair_has_the_scores_of_its_task(store):
    english, translated, italian = quality(store)
    assert (english.ids, translated.ids, italian.ids) == (("a", "b"), ("c",), ("d",))
    # 21 colors / hello you: one word of four is wrong.
    assert english.wer == pytest.approx(25.0)
    assert (english.bleu, english.comet) == (None, None)
    assert translated.wer is None
    assert translated.bleu == pytest.approx(100.0)
    assert "tok:13a" in translated.bleu_signature
    assert italian.wer == pytest.approx(100 / 3)
    assert [result.is_asr for result in (english, translated, italian)] == [True, False, True]


def test_normalisers_are_those_of_whisper():
    assert whisper_normalizer("en")("Mr. Smith's colour, twenty-one!") == "mister smith is color 21"
    assert whisper_normalizer("it")("Perché  No?").strip() == "perché no"


def test_wer_is_over_all_words_and_not_the_mean_of_utterances():
    assert normalized_wer(["a b c d e f g h i", "x"], ["a b c d e f g h i", "y"], "it") == 10.0


def test_maps_are_not_read(store, monkeypatch):
    monkeypatch.setattr(AttributionStore, "read", lambda *_: pytest.fail("read the maps"))
    assert len(quality(store)) == 3


def test_references_of_a_manifest_replace_those_of_the_store(store):
    references = {"a": "21 colors", "b": "hello there", "c": "x", "d": "y", "e": "z"}
    assert quality(store, references)[0].wer == 0.0


@pytest.mark.parametrize(
    ("references", "said"),
    [
        ({"a": "x", "b": "y"}, r"no reference for 2 of 4 utterances \(c, d\)"),
        ({"a": "x", "b": "", "c": "y", "d": "z"}, r"1 of 4 references are empty \(b\)"),
    ],
)
def test_utterances_without_reference_are_listed(store, references, said):
    with pytest.raises(InputError, match=said):
        quality(store, references)


def test_an_empty_store_is_an_error(tmp_path):
    with pytest.raises(InputError, match="no utterance in this store"):
        quality(AttributionStore.create(tmp_path, parameters={}))


def test_without_the_package_a_line_says_how_to_get_comet(monkeypatch):
    monkeypatch.setitem(sys.modules, "comet", None)
    with pytest.raises(InputError, match=r'--comet name: .*pip install ".\[comet\]"'):
        comet_scorer("name")


@pytest.fixture
def comet(monkeypatch):
    """A stand-in for the package: the score is the share of hypotheses that are the reference."""
    calls = []

    def predict(data, gpus, progress_bar):
        calls.append((data, gpus, progress_bar))
        return SimpleNamespace(system_score=sum(d["mt"] == d["ref"] for d in data) / len(data))

    def download(name):
        if name == "missing":
            raise KeyError("Model 'missing' not supported")
        return f"/cache/{name}"

    def load(path):
        calls.append(path)
        return SimpleNamespace(predict=predict)

    module = SimpleNamespace(download_model=download, load_from_checkpoint=load)
    monkeypatch.setitem(sys.modules, "comet", module)
    return calls


def test_comet_is_of_translations_alone(store, comet):
    asr, translated, _ = quality(store, comet=comet_scorer("model", gpus=1))
    assert asr.comet is None
    assert translated.comet == 1.0
    text = "la casa è molto bella"
    assert comet == [
        "/cache/model",
        ([{"src": "some words", "mt": text, "ref": text}], 1, False),
    ]


def test_a_comet_model_may_be_a_file(tmp_path, comet):
    file = tmp_path / "model.ckpt"
    file.touch()
    comet_scorer(str(file))
    assert comet == [str(file)]


@pytest.mark.usefixtures("comet")
def test_a_comet_model_that_cannot_be_loaded_is_named():
    with pytest.raises(InputError, match=r"--comet missing: cannot be loaded .*not supported"):
        comet_scorer("missing")


def test_metrics_say_which_direction_is_better():
    assert [metric.better for metric in (WER, BLEU, COMET)] == ["lower", "higher", "higher"]
    assert (WER.arrow, BLEU.arrow) == ("↓", "↑")
