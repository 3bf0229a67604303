import dataclasses
import re

import numpy as np
import pytest
import soundfile
from report_stores import make_curves
from synthetic import make_attribution, make_store

from fbk_xattn.cli.main import main
from fbk_xattn.data.manifest import ManifestRow, write_manifest
from fbk_xattn.store import CurveStore


@pytest.fixture
def store(rng, tmp_path):
    names = ("a", "b", "c/1")
    return make_store(tmp_path / "store", [make_attribution(rng, id=name) for name in names])


@pytest.fixture
def here(tmp_path, monkeypatch):
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def rows(file):
    return re.findall(r'class="open">([^<]*)<', file.read_text(encoding="utf-8"))


def test_one_file(store, here, capsys):
    assert main(["report", str(store.path)]) == 0
    captured = capsys.readouterr()
    assert re.fullmatch(r"report\.html: 3 utterances, 0\.\d MB\n", captured.out)
    assert captured.err == ""
    assert [file.name for file in here.iterdir()] == ["report.html"]
    assert rows(here / "report.html") == ["a", "b", "c/1"]


def test_ids_are_in_the_order_asked_for(store, here, capsys):
    assert main(["report", str(store.path), "-o", "new/x.html", "--id", "c/1", "a", "c/1"]) == 0
    assert rows(here / "new" / "x.html") == ["c/1", "a"]
    assert "1 of 3 utterances are not in the page" in capsys.readouterr().err


def test_the_first_ones_alone(store, here, capsys):
    assert main(["report", str(store.path), "--max-utterances", "2"]) == 0
    assert rows(here / "report.html") == ["a", "b"]
    assert "1 of 3 utterances are not in the page" in capsys.readouterr().err
    text = (here / "report.html").read_text(encoding="utf-8")
    assert "This page has 2 of the 3 utterances" in text


def test_tasks_share_the_page_evenly(rng, tmp_path, here):
    pairs = {f"asr/{n}": ("en", "en") for n in range(6)} | {f"st/{n}": ("en", "it") for n in "abcd"}
    pairs["x/lone"] = ("it", "en")
    explained = [
        make_attribution(rng, id=name, src_lang=src, tgt_lang=tgt)
        for name, (src, tgt) in pairs.items()
    ]
    store = make_store(tmp_path / "store", explained)
    assert main(["report", str(store.path), "--max-utterances", "6"]) == 0
    taken = ["asr/0", "asr/1", "asr/2", "st/a", "st/b", "x/lone"]
    assert rows(here / "report.html") == taken


def test_curves_of_deletion(store, here, tmp_path):
    folders = [str(make_curves(tmp_path / name, name)) for name in ("input", "encoder")]
    assert main(["report", str(store.path), "--deletion", *folders]) == 0
    text = (here / "report.html").read_text(encoding="utf-8")
    assert text.count("<polyline") == 2
    assert text.count("AUC 50.00") == 2  # a straight line from 0 to 100
    assert text.count("<td>50.00</td>") == 2


def test_curves_of_other_decoding_are_refused(store, here, tmp_path, capsys):
    folders = [str(make_curves(tmp_path / str(beam), "input", beam)) for beam in (1, 2)]
    assert main(["report", str(store.path), "--deletion", *folders]) == 2
    assert "--beam is 2, but 1" in capsys.readouterr().err
    assert not list(here.iterdir())


def manifest(folder, names, audio="{}.flac", n_frames=22):
    folder.mkdir(exist_ok=True)
    written = []
    for name in names:
        file = audio.format(name)
        if file.endswith(".flac"):
            soundfile.write(folder / file, np.zeros(400 + 160 * (n_frames - 1)), 16_000)
        written.append(ManifestRow(name, file, n_frames, "s", "en", "x", "de", "y"))
    write_manifest(folder / "m.tsv", written)
    return str(folder / "m.tsv")


def test_audio_of_several_manifests(store, here, tmp_path, capsys):
    files = [manifest(tmp_path / "one", ["a"]), manifest(tmp_path / "two", ["b", "other"])]
    assert main(["report", str(store.path), "--audio", "flac", "--manifest", *files]) == 0
    text = (here / "report.html").read_text(encoding="utf-8")
    assert text.count("data:audio/flac;base64,") == 2
    said = capsys.readouterr().err
    assert "1 utterances are in none of the manifests and have no audio: c/1" in said


def test_manifests_that_disagree_are_refused(store, tmp_path, capsys):
    files = [manifest(tmp_path / name, ["a"]) for name in ("one", "two")]
    assert main(["report", str(store.path), "--audio", "--manifest", *files]) == 2
    assert "expected one file an utterance" in capsys.readouterr().err


@pytest.mark.parametrize("audio", ["x.npy", "fbank.zip:1:2"])
def test_features_are_no_audio(store, tmp_path, capsys, audio):
    file = manifest(tmp_path / "m", ["a"], audio=audio)
    assert main(["report", str(store.path), "--audio", "--manifest", file]) == 2
    assert f"audio of 'a' is '{audio}', which is no audio file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--id", "d"], "--id 'd': not among the 3 utterances of {store}, expected for example a,"),
        (["--max-utterances", "0"], "--max-utterances 0: expected at least 1"),
        (["--audio"], "--audio: expected --manifest TSV with it"),
        (["--manifest", "x.tsv"], "--manifest: says where audio is, expected --audio with it"),
        (["--audio", "--manifest", "x.tsv"], "x.tsv: no such manifest"),
        (["-o", "."], "--output .: is a folder"),
        (["--deletion", "x"], "x: not a folder of fairseq-generate --deletion or --insertion"),
        (["--words", "sum"], "argument --words: invalid choice: 'sum'"),
    ],
)
def test_wrong_input_writes_nothing(store, here, capsys, flags, said):
    assert main(["report", str(store.path), *flags]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("fbk-xattn: error: " + said.format(store=store.path))
    assert captured.err.count("\n") == 1
    assert not list(here.iterdir())


def test_an_empty_store_is_an_error(tmp_path, capsys):
    make_store(tmp_path / "store", [])
    assert main(["report", str(tmp_path / "store"), "-o", str(tmp_path / "x.html")]) == 2
    assert "no utterance in this store" in capsys.readouterr().err


def test_folders_of_deletion_with_one_name_are_told_apart(store, here, tmp_path):
    folders = [str(make_curves(tmp_path / name / "DEL", "input")) for name in "ab"]
    assert main(["report", str(store.path), "--deletion", *folders]) == 0
    text = (here / "report.html").read_text(encoding="utf-8")
    assert all(f"input ({folder})" in text for folder in folders)


@pytest.mark.usefixtures("here")
def test_a_folder_of_deletion_named_twice_is_an_error(store, tmp_path, capsys):
    folder = make_curves(tmp_path / "DEL", "input")
    paths = [str(folder), str(folder.parent / "store" / ".." / "DEL")]
    assert main(["report", str(store.path), "--deletion", *paths]) == 2
    assert f"{paths[1]}: named twice" in capsys.readouterr().err


@pytest.mark.usefixtures("here")
def test_utterances_that_a_folder_of_deletion_lacks_are_noted(store, tmp_path, capsys):
    folders = [make_curves(tmp_path / name, name) for name in ("input", "encoder")]
    more = CurveStore.open(folders[0])
    more.write(dataclasses.replace(more.read("a"), id="b"))
    assert main(["report", str(store.path), "--deletion", *map(str, folders)]) == 0
    assert f"note: {folders[1]}: without 1 of 2: b" in capsys.readouterr().err


def test_the_current_folder_has_its_name(rng, here):
    make_store(here, [make_attribution(rng, src_lang="de")])
    assert main(["report", "."]) == 0
    assert '<th scope="row">here</th>' in (here / "report.html").read_text(encoding="utf-8")
