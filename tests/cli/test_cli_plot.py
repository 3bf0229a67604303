import numpy as np
import pytest
from synthetic import make_attribution, make_store

from fbk_xattn.cli import plot_corpora, plot_utterances
from fbk_xattn.cli.main import main
from fbk_xattn.store import CurveStore, DecodedCurve, DecodedStep

STARTS = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}


@pytest.fixture
def store(rng, tmp_path):
    ids = ("talk/1", "talk/2", "b", "c")
    return make_store(tmp_path / "store", [make_attribution(rng, id=name) for name in ids])


@pytest.fixture
def curves(tmp_path):
    for map_name in ("input", "encoder"):
        parameters = {"mode": "deletion", "--deletion-map": map_name}
        with CurveStore.create(tmp_path / map_name, parameters) as folder:
            steps = tuple(
                DecodedStep(text, np.arange(2), np.zeros(2, np.float32), 0.0)
                for text in ("a b c d", "a b", "")
            )
            folder.write(
                DecodedCurve(
                    id="u", src_lang="en", tgt_lang="en", src_text="s", tgt_text="a b c d",
                    percentages=np.array([0, 50, 100]), n_removed=np.array([0, 2, 4]), n_units=4,
                    steps=steps,
                )
            )  # fmt: skip
    return [str(tmp_path / "input"), str(tmp_path / "encoder")]


@pytest.fixture
def here(tmp_path, monkeypatch):
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def drawn(monkeypatch):
    """Record what is drawn and where instead of doing it, for tests of names and flags."""
    calls = []

    def recorder(name):
        def draw(first, **chosen):
            what = [first] if hasattr(first, "id") else first
            calls.append((name, [getattr(one, "id", one) for one in what], chosen))

        return draw

    for module, names in (
        (plot_utterances, ("draw_maps", "draw_spectrogram")),
        (plot_corpora, ("draw_heads", "draw_distribution", "draw_curves")),
    ):
        for name in names:
            monkeypatch.setattr(module, name, recorder(name))
        monkeypatch.setattr(module, "write_figure", lambda _, file: calls.append(str(file)))
    return calls


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_default_is_a_png_a_id_in_the_current_folder(store, here, capsys):
    assert main(["plot", str(store.path), "--id", "talk/1", "b", "b"]) == 0
    assert files(here) == ["b.png", "talk_1.png"]
    assert all((here / name).read_bytes().startswith(STARTS["png"]) for name in files(here))
    captured = capsys.readouterr()
    assert captured.out == "talk_1.png\nb.png\n"
    assert captured.err == ""


def test_all_into_a_new_folder(store, here):
    assert main(["plot", str(store.path), "--all", "--output", "f", "--format", "svg"]) == 0
    assert files(here) == [f"f/{name}.svg" for name in ("b", "c", "talk_1", "talk_2")]


@pytest.mark.parametrize("figure", ["maps", "saliency", "layers", "tokens", "deletion"])
@pytest.mark.parametrize("form", STARTS)
def test_every_figure_in_every_format(store, curves, here, capsys, figure, form):
    stores = curves if figure == "deletion" else [str(store.path)]
    which = ["--id", "b"] if figure in ("maps", "saliency") else []
    flags = ["--figure", figure, *which, "--output", f"new/figure.{form}"]
    assert main(["plot", *stores, *flags]) == 0
    assert files(here) == [f"new/figure.{form}"]
    assert (here / f"new/figure.{form}").read_bytes().startswith(STARTS[form])
    captured = capsys.readouterr()
    assert captured.out == f"new/figure.{form}\n"
    assert captured.err == ""


def test_layers_and_heads_count_from_1(store, drawn):
    flags = ["--layers", "2", "1", "2", "--heads", "3", "--aggregation", "2d-avg", "--same-scale"]
    more = ["--width", "column", "--words", "max", "--no-header"]
    assert main(["plot", str(store.path), "--id", "b", *flags, *more]) == 0
    ((name, ids, chosen), file) = drawn
    assert (name, ids, file) == ("draw_maps", ["b"], "b.png")
    assert chosen == {
        "width": 3.3, "aggregation": "2d-avg", "layers": [0, 1], "heads": [2], "words": "max",
        "same_scale": True, "arrangement": "rows", "header": False, "stored": ["weights"],
    }  # fmt: skip


def test_defaults(store, curves, drawn):
    path = str(store.path)
    assert main(["plot", path, "--id", "b"]) == 0
    assert main(["plot", path, "--id", "b", "--figure", "saliency"]) == 0
    assert main(["plot", path, "--figure", "layers"]) == 0
    assert main(["plot", path, "--figure", "tokens"]) == 0
    assert main(["plot", *curves, "--figure", "deletion"]) == 0
    calls = [call for call in drawn if not isinstance(call, str)]
    assert [call for call in drawn if isinstance(call, str)] == [
        "b.png", "b.png", "layers.png", "tokens.png", "deletion.png",
    ]  # fmt: skip
    maps, saliency, heads, tokens, deletion = (chosen for _, _, chosen in calls)
    assert maps == {
        "width": 6.9, "aggregation": "2d-max", "layers": None, "heads": None, "words": None,
        "same_scale": False, "arrangement": "rows", "header": True, "stored": ["weights"],
    }  # fmt: skip
    assert saliency == {"width": 6.9, "rows": None, "words": None, "header": True}
    assert heads == {"width": 6.9, "same_scale": False, "header": True}
    assert tokens == {"kind": "violin", "width": 6.9, "header": True}
    assert deletion == {"width": 3.3}


def test_rows_of_saliency_count_from_1(store, drawn):
    flags = ["--figure", "saliency", "--rows", "3", "1", "--width", "5.5"]
    assert main(["plot", str(store.path), "--id", "b", *flags]) == 0
    assert drawn[0][2]["rows"] == [0, 2]
    assert drawn[0][2]["width"] == 5.5


def test_together_is_one_figure(store, drawn):
    pair = ["--id", "talk/1", "b", "--together"]
    assert main(["plot", str(store.path), *pair, "--output", "x.pdf"]) == 0
    assert main(["plot", str(store.path), *pair, "rows", "--output", "new"]) == 0
    (_, ids, chosen), file, (_, _, below), other = drawn
    assert (ids, chosen["arrangement"], file) == (["talk/1", "b"], "columns", "x.pdf")
    assert (below["arrangement"], other) == ("rows", "new/maps.png")


def test_an_id_in_several_stores_is_drawn_of_each(rng, store, tmp_path, drawn):
    other = make_store(tmp_path / "other", [make_attribution(rng, id="b")])
    stores = [str(store.path), str(other.path)]
    assert main(["plot", *stores, "--id", "b", "c"]) == 0
    assert [call if isinstance(call, str) else call[1] for call in drawn] == [
        ["store: b"], "store_b.png", ["other: b"], "other_b.png", ["store: c"], "store_c.png",
    ]  # fmt: skip


def test_correlations_are_of_the_settings(store, drawn):
    flags = ["--target", "encoder", "--coefficient", "spearman", "--normalize", "none"]
    for figure in ("layers", "tokens"):
        assert main(["plot", str(store.path), "--figure", figure, *flags]) == 0
    (_, [(label, heads)], _), _, (_, [(_, tokens)], _), _ = drawn
    assert label == ""
    for table in (heads, tokens):
        setting = table.setting
        assert (setting.target, setting.coefficient, setting.normalize) == (
            "encoder", "spearman", "none",
        )  # fmt: skip


def test_tokens_can_be_words(rng, tmp_path, drawn):
    tokens = ("<lang:de>", "▁ein", "▁Wo", "rt", "▁es", "ist", "</s>")
    make_store(tmp_path / "s", [make_attribution(rng, tokens=tokens)])
    flags = ["--figure", "tokens", "--words", "mean", "--kind", "box"]
    assert main(["plot", str(tmp_path / "s"), *flags]) == 0
    (_, [(_, table), _], chosen), _ = drawn
    assert table.tokens == ("▁ein", "▁Wort", "▁esist")
    assert table.words == "mean"
    assert chosen["kind"] == "box"


def test_stores_that_lack_a_map_are_noted(rng, tmp_path, here, capsys):
    make_store(tmp_path / "s", [make_attribution(rng, without=["input_saliency"])])
    for figure in ("layers", "tokens"):
        assert main(["plot", str(tmp_path / "s"), "--figure", figure]) == 0
        assert "note: no input saliency in this store" in capsys.readouterr().err
    assert files(here) == ["layers.png", "tokens.png"]


def test_a_target_without_a_defined_correlation_is_noted(rng, tmp_path, here, capsys):
    flat = np.ones((7, 6), dtype=np.float32)
    make_store(tmp_path / "s", [make_attribution(rng, encoder_saliency=flat)])
    assert main(["plot", str(tmp_path / "s"), "--figure", "tokens"]) == 0
    assert capsys.readouterr().err == (
        "fbk-xattn: note: encoder-output saliency: correlation undefined for all of 5 tokens\n"
    )
    assert files(here) == ["tokens.png"]


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("figure", ["layers", "tokens"])
def test_utterances_that_lack_a_map_are_noted(rng, tmp_path, capsys, figure):
    parts = {"a": [], "b": ["encoder_saliency"]}
    make_store(tmp_path / "s", [make_attribution(rng, id=i, without=parts[i]) for i in parts])
    assert main(["plot", str(tmp_path / "s"), "--figure", figure]) == 0
    assert capsys.readouterr().err == (
        "fbk-xattn: note: encoder-output saliency: 1 utterances left out: b (no encoder-output "
        "saliency)\n"
    )


@pytest.mark.usefixtures("here")
def test_folders_of_different_utterances_are_noted(curves, capsys):
    folder = CurveStore.open(curves[1])
    record = folder.read("u")
    folder.file("u").unlink()
    folder.write(type(record)(**{**record.__dict__, "id": "v"}))
    assert main(["plot", *curves, "--figure", "deletion"]) == 0
    assert f"{curves[0]}: without 1 of 2: v" in capsys.readouterr().err


@pytest.mark.usefixtures("here")
def test_letters_that_no_font_has_are_noted(rng, tmp_path, capsys):
    tokens = ("<lang:de>", "▁\U000f1234", "</s>")
    make_store(tmp_path / "s", [make_attribution(rng, S=3, tokens=tokens)])
    assert main(["plot", str(tmp_path / "s"), "--all"]) == 0
    captured = capsys.readouterr()
    assert captured.err == (
        "fbk-xattn: note: a_1.png: boxes for \U000f1234 (U+F1234), which no installed font has\n"
    )


def test_ids_that_would_share_a_file_get_their_own(rng, tmp_path, drawn):
    make_store(tmp_path, [make_attribution(rng, id=name) for name in ("a/b", "a_b", "a/c")])
    assert main(["plot", str(tmp_path), "--all", "--output", "figures"]) == 0
    assert [call for call in drawn if isinstance(call, str)] == [
        "figures/a%2Fb.png",
        "figures/a%2Fc.png",
        "figures/a_b.png",
    ]


def test_a_folder_may_look_like_a_file(store, here, drawn):
    (here / "is.png").mkdir()
    for output in ("is.png", "run.2/", ".."):
        assert main(["plot", str(store.path), "--id", "b", "c", "--output", output]) == 0
    assert [call for call in drawn if isinstance(call, str)] == [
        "is.png/b.png",
        "is.png/c.png",
        "run.2/b.png",
        "run.2/c.png",
        "../b.png",
        "../c.png",
    ]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (
            ["--id", "b", "d"],
            "--id 'd': not among the 4 utterances of {store}, expected for example b, c, talk/1",
        ),
        ([], "--figure maps without utterances: expected --id ID or --all"),
        (["--id", "b", "c", "--output", "x.png"], "--output x.png: one file for 2 utterances"),
        (["--all", "--output", "x.pdf"], "--output x.pdf: one file for 4 utterances"),
        (["--id", "b", "--output", "x.jpg"], "--output x.jpg: expected a name ending in .png,"),
        (["--id", "b", "--output", "x.pdf", "--format", "svg"], "--output x.pdf with --format svg"),
        (["--id", "b", "--layers", "0"], "--layers 0: expected numbers from 1"),
        (["--all", "--layers", "3"], "--layers 3: expected 1 to 2"),
        (["--id", "b", "--heads", "4", "1"], "--heads 4: expected 1 to 3"),
        (["--id", "b", "--width", "wide"], "--width wide: expected column, page or a number"),
        (["--id", "b", "--width", "100"], "width 100 in: expected 2 to 40 in"),
        (["--id", "b", "--width", "nan"], "width nan in: expected 2 to 40 in"),
        (["--id", "b", "--kind", "box"], "--kind with --figure maps: expected --figure tokens"),
        (
            ["--figure", "layers", "--id", "b"],
            "--id with --figure layers: expected --figure maps or saliency",
        ),
        (
            ["--figure", "layers", "--words", "max"],
            "--words with --figure layers: expected --figure maps or saliency or tokens",
        ),
        (
            ["--figure", "saliency", "--id", "b", "--rows", "6"],
            "token 6: expected 1 to 5, as many as utterance 'b' has",
        ),
        (["--figure", "deletion"], "{store}: is an attribution store, expected a folder of"),
    ],
)
def test_wrong_input_writes_nothing(store, here, capsys, flags, said):
    assert main(["plot", str(store.path), *flags]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("fbk-xattn: error: " + said.format(store=store.path))
    assert captured.err.count("\n") == 1
    assert files(here) == []


def test_all_goes_on_after_an_utterance_that_cannot_be_drawn(rng, tmp_path, here, capsys):
    store = make_store(
        tmp_path / "store", [make_attribution(rng, id="a", S=2), make_attribution(rng, id="b")]
    )
    assert main(["plot", str(store.path), "--all"]) == 1
    assert files(here) == ["b.png"]
    captured = capsys.readouterr()
    assert captured.out == "b.png\n"
    assert captured.err.splitlines() == [
        "fbk-xattn: not drawn: utterance 'a': nothing to plot, expected a token besides language "
        "tag and eos",
        "fbk-xattn: 1 of 2 utterances not drawn",
    ]


def test_an_utterance_asked_for_that_cannot_be_drawn_is_an_error(rng, tmp_path, here, capsys):
    make_store(tmp_path / "store", [make_attribution(rng, id="a", S=2)])
    assert main(["plot", str(tmp_path / "store"), "--id", "a"]) == 2
    assert capsys.readouterr().err.startswith("fbk-xattn: error: utterance 'a': nothing to plot")
    assert files(here) == []


def test_an_empty_store_is_an_error(tmp_path, capsys):
    make_store(tmp_path / "store", [])
    assert main(["plot", str(tmp_path / "store"), "--all"]) == 2
    assert "no utterance in this store" in capsys.readouterr().err


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("figure", ["layers", "tokens"])
def test_aggregation_without_the_input_is_an_error(store, capsys, figure):
    flags = ["--target", "encoder", "--aggregation", "2d-avg"]
    assert main(["plot", str(store.path), "--figure", figure, *flags]) == 2
    assert "--aggregation 2d-avg with --target encoder" in capsys.readouterr().err


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("flags", [["--layers", "3"], ["--heads", "99"]])
def test_layers_and_heads_without_cross_attention_are_an_error(rng, tmp_path, capsys, flags):
    make_store(tmp_path / "s", [make_attribution(rng, without=["cross_attention"])])
    assert main(["plot", str(tmp_path / "s"), "--all", *flags]) == 2
    said = f"{' '.join(flags)}: no utterance has cross-attention, expected a run of"
    assert said in capsys.readouterr().err


def test_what_is_stored_of_cross_attention_reaches_the_figure(rng, tmp_path, drawn):
    for kind in ("weights", "norms"):
        make_store(tmp_path / kind, [make_attribution(rng)], **{"--cross-attention": kind})
    paths = [str(tmp_path / kind) for kind in ("norms", "weights")]
    assert main(["plot", *paths, "--all", "--together"]) == 0
    assert drawn[0][2]["stored"] == ["norms", "weights"]
