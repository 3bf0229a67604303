import pytest
from synthetic import make_attribution, make_store

from fbk_xattn.cli import plot
from fbk_xattn.cli.main import main

PNG = b"\x89PNG"


@pytest.fixture
def store(rng, tmp_path):
    ids = ("talk/1", "talk/2", "b", "c")
    return make_store(tmp_path / "store", [make_attribution(rng, id=name) for name in ids])


@pytest.fixture
def here(tmp_path, monkeypatch):
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def drawn(monkeypatch):
    """Record what is drawn instead of drawing it, for tests of names and flags."""
    calls = []

    def record(attribution, file, **chosen):
        calls.append((attribution.id, str(file), chosen))

    monkeypatch.setattr(plot, "plot_attribution", record)
    return calls


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_default_is_a_png_a_id_in_the_current_folder(store, here, capsys):
    assert main(["plot", str(store.path), "--id", "talk/1", "b", "b"]) == 0
    assert files(here) == ["b.png", "talk_1.png"]
    assert all((here / name).read_bytes().startswith(PNG) for name in files(here))
    captured = capsys.readouterr()
    assert captured.out == "talk_1.png\nb.png\n"
    assert captured.err == ""


def test_all_into_a_new_folder(store, here):
    assert main(["plot", str(store.path), "--all", "--output", "figures"]) == 0
    assert files(here) == [f"figures/{name}.png" for name in ("b", "c", "talk_1", "talk_2")]


def test_one_file(store, here):
    assert main(["plot", str(store.path), "--id", "b", "--output", "new/figure.svg"]) == 0
    assert files(here) == ["new/figure.svg"]
    assert (here / "new/figure.svg").read_bytes().startswith(b"<?xml")


def test_layers_and_heads_count_from_1(store, drawn):
    flags = ["--layers", "2", "1", "2", "--heads", "3", "--aggregation", "2d-avg"]
    assert main(["plot", str(store.path), "--id", "b", *flags]) == 0
    assert drawn == [("b", "b.png", {"layers": [0, 1], "heads": [2], "aggregation": "2d-avg"})]


def test_default_is_all_layers_and_heads(store, drawn):
    assert main(["plot", str(store.path), "--id", "b"]) == 0
    assert drawn == [("b", "b.png", {"layers": None, "heads": None, "aggregation": "2d-max"})]


def test_ids_that_would_share_a_file_get_their_own(rng, tmp_path, drawn):
    make_store(tmp_path, [make_attribution(rng, id=name) for name in ("a/b", "a_b", "a/c")])
    assert main(["plot", str(tmp_path), "--all", "--output", "figures"]) == 0
    assert [(name, file) for name, file, _ in drawn] == [
        ("a/b", "figures/a%2Fb.png"),
        ("a/c", "figures/a%2Fc.png"),
        ("a_b", "figures/a_b.png"),
    ]


def test_a_folder_may_look_like_a_file(store, here, drawn):
    (here / "is.png").mkdir()
    for output in ("is.png", "run.2/", ".."):
        assert main(["plot", str(store.path), "--id", "b", "c", "--output", output]) == 0
    assert [file for _, file, _ in drawn] == [
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
        (["--id", "b", "c", "--output", "x.png"], "--output x.png: one file for 2 utterances"),
        (["--all", "--output", "x.pdf"], "--output x.pdf: one file for 4 utterances"),
        (["--id", "b", "--output", "x.jpg"], "--output x.jpg: expected a name ending in .png,"),
        (["--id", "b", "--layers", "0"], "--layers 0: expected numbers from 1"),
        (["--all", "--layers", "3"], "--layers 3: expected 1 to 2"),
        (["--id", "b", "--heads", "4", "1"], "--heads 4: expected 1 to 3"),
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
