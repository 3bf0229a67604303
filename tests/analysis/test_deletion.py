import numpy as np
import pytest
from golden import published

from fbk_xattn.analysis.deletion import auc_metric, evaluate, score_curve
from fbk_xattn.analysis.metric import area
from fbk_xattn.errors import InputError
from fbk_xattn.store import CurveStore, DecodedCurve, DecodedStep

PERCENTAGES = np.arange(0, 101, 5)
PARAMETERS = {"mode": "deletion", "--deletion-map": "input", "--deletion-step": 50}


def step(text):
    return DecodedStep(text, np.arange(3), np.zeros(3, dtype=np.float32), -0.5)


def curve(name, texts, reference="one two three four", languages=("en", "en"), mode="deletion"):
    n = np.linspace(0, 10, len(texts)).astype(np.int64)
    return DecodedCurve(
        id=name, src_lang=languages[0], tgt_lang=languages[1], src_text="some words",
        tgt_text=reference, percentages=10 * n, n_removed=n if mode == "deletion" else 10 - n,
        n_units=10, steps=tuple(map(step, texts)),
    )  # fmt: skip


def make_curves(path, curves, **parameters):
    with CurveStore.create(path, parameters={**PARAMETERS, **parameters}) as store:
        for one in curves:
            store.write(one)
    return store


@pytest.mark.parametrize("mode", ["deletion", "insertion"])
@pytest.mark.parametrize("score", ["wer", "wer_max", "bleu"])
def test_areas_are_those_of_the_published_system(mode, score):
    golden = published.values("deletion_hyps")
    scores = score_curve(golden["references"], golden[mode], score)
    assert 100 * area(PERCENTAGES, scores) == pytest.approx(golden["auc"][mode][score], abs=1e-9)


@pytest.mark.parametrize("score", ["wer", "wer_max", "bleu"])
def test_scores_of_made_up_texts_are_those_of_the_published_system(score):
    golden = published.values("auc")
    theirs = golden[{"bleu": "sacrebleu"}.get(score, score)]
    scores = score_curve(golden["refs"], list(golden["hyps"].values()), score)
    np.testing.assert_allclose(scores, theirs["scores"], atol=1e-9)
    ours = 100 * area(np.array(golden["percentages"]), scores)
    assert ours == pytest.approx(theirs["auc"], abs=1e-9)


def test_a_store_of_the_published_texts_has_their_areas(tmp_path):
    golden = published.values("deletion_hyps")
    curves = [
        DecodedCurve(
            id=f"u{u}", src_lang="en", tgt_lang="it", src_text="", tgt_text=reference,
            percentages=PERCENTAGES, n_removed=PERCENTAGES, n_units=100,
            steps=tuple(step(texts[u]) for texts in golden["deletion"]),
        )
        for u, reference in enumerate(golden["references"])
    ]  # fmt: skip
    store = make_curves(tmp_path, curves)
    results = evaluate(store, ["wer_max", "bleu"])
    assert [100 * result.auc for result in results] == pytest.approx(
        [golden["auc"]["deletion"]["wer_max"], golden["auc"]["deletion"]["bleu"]], abs=1e-9
    )
    assert results[0].ids == tuple(f"u{u}" for u in range(6))


def test_asr_has_wer_and_st_has_bleu_each_apart(tmp_path):
    right = "one two three four"
    curves = [
        curve("a", [right, "one two", ""]),
        curve("b", [right, right, "x"], languages=("en", "it")),
        curve("c", [right, right, right], languages=("it", "it")),
    ]
    english, italian, recognised = evaluate(make_curves(tmp_path, curves))
    assert [r.languages for r in (english, italian, recognised)] == [
        ("en", "en"), ("en", "it"), ("it", "it"),
    ]  # fmt: skip
    assert [r.score for r in (english, italian, recognised)] == ["wer_max", "bleu", "wer_max"]
    assert english.scores.tolist() == [0.0, 50.0, 100.0]
    assert english.auc == 50.0
    assert italian.scores.tolist() == pytest.approx([100.0, 100.0, 0.0])
    assert recognised.auc == 0.0


def test_wer_is_of_texts_as_they_are_and_wer_max_is_cut():
    references = ["One, two."]
    assert score_curve(references, [["one two"], ["One, two."], ["a b c d e"]], "wer").tolist() == [
        100.0, 0.0, 250.0,
    ]  # fmt: skip
    assert score_curve(references, [["a b c d e"]], "wer_max").tolist() == [100.0]


def test_references_of_a_manifest_replace_those_of_the_store(tmp_path):
    store = make_curves(tmp_path, [curve("a", ["x y", "x y", "x y"])])
    (result,) = evaluate(store, references={"a": "x y", "b": "more"})
    assert result.auc == 0.0


@pytest.mark.parametrize(
    ("references", "said"),
    [
        ({"b": "x"}, r"no reference for 2 of 2 utterances \(a, c\)"),
        ({"a": "x", "c": " "}, r"1 of 2 references are empty \(c\)"),
    ],
)
def test_utterances_without_reference_are_listed(tmp_path, references, said):
    store = make_curves(tmp_path, [curve(name, ["", "", ""]) for name in "ac"])
    with pytest.raises(InputError, match=said):
        evaluate(store, references=references)


def test_an_empty_folder_and_an_unknown_score_are_named(tmp_path):
    store = make_curves(tmp_path / "empty", [])
    with pytest.raises(InputError, match="no utterance in this folder"):
        evaluate(store)
    with pytest.raises(InputError, match="score 'ter': expected one of wer, wer_max, bleu"):
        evaluate(make_curves(tmp_path / "one", [curve("a", ["", "", ""])]), ["ter"])


@pytest.mark.parametrize(
    ("mode", "score", "better"),
    [
        ("deletion", "wer_max", "higher"),
        ("deletion", "bleu", "lower"),
        ("insertion", "wer_max", "lower"),
        ("insertion", "bleu", "higher"),
    ],
)
def test_which_area_is_better(mode, score, better):
    metric = auc_metric(mode, score)
    assert metric.better == better
    assert (metric.low, metric.high) == (0.0, 100.0)
    assert "2411.01710" in metric.source
