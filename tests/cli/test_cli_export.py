import subprocess
import sys
from pathlib import Path

import h5py
import pytest
from synthetic import make_attribution

import fbk_xattn
from fbk_xattn.cli.main import main
from fbk_xattn.data.manifest import ManifestRow, write_manifest
from fbk_xattn.store import AttributionStore

ROOT = Path(fbk_xattn.__file__).parents[1]


@pytest.fixture
def store(rng, tmp_path):
    store = AttributionStore.create(tmp_path / "store", parameters={"--num-masks": 10})
    for name in ("talk/1", "b", "a"):
        store.write(make_attribution(rng, id=name))
    return store


@pytest.fixture
def manifest_of(tmp_path):
    def write(*ids):
        rows = [ManifestRow(name, "x.npy", 22, "s", "en", "hi", "en", "hi") for name in ids]
        write_manifest(tmp_path / "test.tsv", rows)
        return tmp_path / "test.tsv"

    return write


def ids_by_group(file):
    with h5py.File(file, "r") as h5:
        return {name: group.attrs["id"] for name, group in h5.items()}


def test_rows_of_the_manifest_name_the_groups(store, manifest_of, tmp_path, capsys):
    manifest = manifest_of("b", "talk/1", "a")
    output = tmp_path / "maps.h5"
    flags = ["--manifest", str(manifest), "--output", str(output)]
    assert main(["export", str(store.path), *flags]) == 0
    assert ids_by_group(output) == {"0": "b", "1": "talk/1", "2": "a"}
    captured = capsys.readouterr()
    assert captured.out == f"{output}: 3 utterances\n"
    assert captured.err == ""


def test_rows_that_are_not_in_the_store_are_told(store, manifest_of, tmp_path, capsys):
    absent = [f"absent{number}" for number in range(7)]
    manifest = manifest_of(absent[0], "b", "a", *absent[1:], "talk/1")
    output = tmp_path / "maps.h5"
    flags = ["--manifest", str(manifest), "--output", str(output)]
    assert main(["export", str(store.path), *flags]) == 0
    assert ids_by_group(output) == {"1": "b", "2": "a", "9": "talk/1"}
    assert capsys.readouterr().err == (
        "fbk-xattn: note: 7 of 10 rows are not in the store: absent0, absent1, absent2, absent3, "
        "absent4 and 2 more\n"
    )


def test_without_a_manifest_ids_are_numbered_and_that_is_told(store, tmp_path, capsys):
    assert main(["export", str(store.path), "--output", str(tmp_path / "maps.h5")]) == 0
    assert ids_by_group(tmp_path / "maps.h5") == {"0": "a", "1": "b", "2": "talk/1"}
    assert capsys.readouterr().err == (
        "fbk-xattn: note: groups are numbered in the order of the ids; with --manifest TSV by "
        "its rows\n"
    )


def test_progress_on_a_terminal(store, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert main(["export", str(store.path), "--output", str(tmp_path / "maps.h5")]) == 0
    assert capsys.readouterr().err.endswith("\r2/3 utterances\r3/3 utterances\n")


def refused(capsys, arguments):
    assert main([str(argument) for argument in arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    *_, last = captured.err.splitlines()
    assert last.startswith("fbk-xattn: error: ")
    return last


def test_utterance_that_is_not_in_the_manifest_is_refused(store, manifest_of, tmp_path, capsys):
    manifest, output = manifest_of("a", "b"), tmp_path / "maps.h5"
    said = refused(capsys, ["export", store.path, "--manifest", manifest, "--output", output])
    assert f"--manifest {manifest}: no row for utterance 'talk/1' of {store.path}" in said
    assert not output.exists()


def test_utterance_without_input_saliency_is_refused(store, rng, tmp_path, capsys):
    store.write(make_attribution(rng, id="c", without=["input_saliency"]))
    said = refused(capsys, ["export", store.path, "--output", tmp_path / "maps.h5"])
    assert "utterance 'c': saved without input saliency" in said
    assert not (tmp_path / "maps.h5").exists()


def test_empty_store_and_wrong_places_are_refused(store, tmp_path, capsys):
    empty = AttributionStore.create(tmp_path / "empty", parameters={"--num-masks": 10})
    file = tmp_path / "maps.h5"
    assert "no utterance in this store" in refused(capsys, ["export", empty.path, "--output", file])
    assert "not an attribution store" in refused(capsys, ["export", tmp_path, "--output", file])
    assert "is a folder" in refused(capsys, ["export", store.path, "--output", tmp_path])
    assert "--output" in refused(capsys, ["export", store.path])


def test_it_imports_neither_torch_nor_fairseq_and_help_not_even_h5py(store, manifest_of, tmp_path):
    manifest = manifest_of("a", "b", "talk/1")
    code = (
        "import contextlib, sys\n"
        "from fbk_xattn.cli.main import main\n"
        "with contextlib.suppress(SystemExit):\n"
        "    main(['export', '--help'])\n"
        "before = 'h5py' in sys.modules\n"
        "code = main(sys.argv[1:])\n"
        "print(code, before, {'torch', 'fairseq', 'matplotlib'} & set(sys.modules))\n"
    )
    command = ["export", store.path, "--manifest", manifest, "--output", tmp_path / "maps.h5"]
    result = subprocess.run(
        [sys.executable, "-c", code, *map(str, command)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.splitlines()[-1] == "0 False set()"
