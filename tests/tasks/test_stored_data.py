"""A store is gone on with only where it holds these data, decoded with these flags."""

from __future__ import annotations

import dataclasses
import shutil

import numpy as np
import pytest
from fairseq_runs import run_generate

from fbk_xattn.data.manifest import read_manifest, write_manifest
from fbk_xattn.errors import InputError

FLAGS = ("--explain", "encoder", "--num-masks", "4")


@pytest.fixture(scope="module")
def explained(data, checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("stored") / "store"
    run_generate(data, checkpoint, "--attribution-dir", folder, *FLAGS)
    return folder


@pytest.fixture
def store(explained, tmp_path):
    shutil.copytree(explained, tmp_path / "store")
    return tmp_path / "store"


def changed(data, folder, change):
    """Copy the data folder, its test split with a changed second row."""
    shutil.copytree(data, folder)
    rows = read_manifest(folder / "test.tsv")
    rows[1] = change(rows)
    write_manifest(folder / "test.tsv", rows)
    return folder


def other_text(rows):
    return dataclasses.replace(rows[1], tgt_text="another text")


def other_audio(rows):
    (other,) = [row for row in rows[2:3] if row.n_frames != rows[1].n_frames]
    return dataclasses.replace(rows[1], audio=other.audio, n_frames=other.n_frames)


@pytest.mark.parametrize("missing", [0, 1])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (other_text, r"stored with tgt_text .*, the manifest has 'another text'"),
        (other_audio, r"of features of the shape .*, the data have"),
    ],
)
def test_an_utterance_of_other_data_fails_alone(
    data, checkpoint, store, tmp_path, caplog, missing, change, message
):
    folder = changed(data, tmp_path / "data", change)
    ids = [row.id for row in read_manifest(folder / "test.tsv")]
    for name in ids[2 : 2 + missing]:
        (store / f"{name.replace('/', '%2F')}.npz").unlink()
    kept = (store / "test%2F1.npz").read_bytes()
    with (
        caplog.at_level("INFO"),
        pytest.raises(SystemExit, match=rf"1 of 5 utterances failed.*test%2F1.npz: {message}"),
    ):
        run_generate(folder, checkpoint, "--attribution-dir", store, *FLAGS)
    there = f"{missing} decoded, {4 - missing} already there, 1 failed, 0 left"
    assert there in caplog.text
    assert (store / "test%2F1.npz").read_bytes() == kept


@pytest.fixture
def noisy(data, tmp_path):
    """A data folder whose test/1 is noise of the same length."""
    path = tmp_path / "data" / "noise.npy"

    def noise(rows):
        rng = np.random.default_rng(0)
        np.save(path, rng.standard_normal((rows[1].n_frames, 80)).astype(np.float32))
        return dataclasses.replace(rows[1], audio=str(path))

    return changed(data, tmp_path / "data", noise)


def test_features_of_the_same_shape_are_compared(noisy, checkpoint, store):
    with pytest.raises(SystemExit, match=r"1 of 5 .*differ from those of the data by up to \d"):
        run_generate(noisy, checkpoint, "--attribution-dir", store, *FLAGS)


def test_maps_of_other_data_remove_nothing(noisy, checkpoint, store, tmp_path):
    flags = ("--deletion", tmp_path / "out", "--deletion-map", "encoder", "--deletion-step", 50)
    with pytest.raises(SystemExit, match=r"1 of 5 .*'test/1'.*differ from those of the data"):
        run_generate(noisy, checkpoint, "--attribution-dir", store, *flags)


@pytest.mark.parametrize("missing", [0, 1])
def test_a_damaged_file_is_the_failure_of_its_utterance(data, checkpoint, store, caplog, missing):
    (store / "test%2F1.npz").write_bytes(b"")
    for number in range(2, 2 + missing):
        (store / f"test%2F{number}.npz").unlink()
    with (
        caplog.at_level("INFO"),
        pytest.raises(SystemExit, match=r"1 of 5 .*test%2F1.npz: unreadable .*delete it"),
    ):
        run_generate(data, checkpoint, "--attribution-dir", store, *FLAGS)
    assert f"{missing} decoded, {4 - missing} already there, 1 failed, 0 left" in caplog.text


def test_a_damaged_curve_is_the_failure_of_its_utterance(data, checkpoint, store, tmp_path, caplog):
    flags = ("--attribution-dir", store, "--deletion", tmp_path / "out")
    flags += ("--deletion-map", "encoder", "--deletion-step", 50)
    run_generate(data, checkpoint, *flags)
    (tmp_path / "out" / "test%2F1.npz").write_bytes(b"")
    with caplog.at_level("INFO"), pytest.raises(SystemExit, match=r"1 of 5 .*unreadable"):
        run_generate(data, checkpoint, *flags)
    assert "0 decoded, 4 already there, 1 failed, 0 left" in caplog.text


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--model-overrides", "{'dropout': 0.2}"), "has --model-overrides = None"),
        (("--nbest", 2), "--nbest 2 with --attribution-dir: expected 1"),
        (("--score-reference",), "--score-reference True with --attribution-dir"),
        (("--print-alignment",), "--print-alignment hard with --attribution-dir"),
        (("--sampling", "--beam", 1), "--sampling True with .*: expected none, as h"),
        (("--retain-dropout",), "--retain-dropout True with --attribution-dir: expected none"),
        (("--checkpoint-suffix", ".b"), "--checkpoint-suffix .b with .*: expected none"),
        (("--checkpoint-shard-count", 2), "--checkpoint-shard-count 2 with .*: expected 1"),
        (("--constraints",), "--constraints ordered with --attribution-dir: expected none"),
    ],
)
def test_hypotheses_of_other_flags_are_not_taken(data, checkpoint, store, flags, message):
    with pytest.raises(InputError, match=message):
        run_generate(data, checkpoint, "--attribution-dir", store, *FLAGS, *flags)


def test_utterances_of_another_vocabulary_fail(data, checkpoint, store, tmp_path):
    shutil.copytree(data, tmp_path / "data")
    vocabulary = tmp_path / "data" / "dict.txt"
    vocabulary.write_text("".join(reversed(vocabulary.read_text().splitlines(keepends=True))))
    with pytest.raises(SystemExit, match=r"5 of 5 .*: token \d+ is '.*', the vocabulary has '"):
        run_generate(tmp_path / "data", checkpoint, "--attribution-dir", store, *FLAGS)


def test_an_id_that_is_too_long_is_of_its_manifest(data, checkpoint, tmp_path):
    def long(rows):
        return dataclasses.replace(rows[1], id="\N{CJK UNIFIED IDEOGRAPH-8A9E}" * 23)

    folder = changed(data, tmp_path / "data", long)
    with pytest.raises(InputError, match=r"^test\.tsv: utterance id '.*': expected 1 to 200 char"):
        run_generate(folder, checkpoint, "--attribution-dir", tmp_path / "new", *FLAGS)
    assert not (tmp_path / "new").exists()


def test_what_fairseq_refuses_leaves_no_store_behind(data, checkpoint, tmp_path):
    with pytest.raises(AssertionError):
        run_generate(
            data, checkpoint, "--attribution-dir", tmp_path / "new", *FLAGS, "--temperature", 0
        )
    assert not (tmp_path / "new").exists()


def test_files_without_their_parameters_are_not_taken(data, checkpoint, store):
    (store / "meta.json").unlink()
    with pytest.raises(InputError, match=r"has \.npz files but no meta\.json"):
        run_generate(data, checkpoint, "--attribution-dir", store, *FLAGS)
    assert not (store / "meta.json").exists()


def test_references_are_scored_without_a_store(data, checkpoint):
    lines = run_generate(data, checkpoint, "--score-reference")
    assert sum(line.startswith("H-") for line in lines) == 5


def test_utterances_that_may_be_skipped_are_left_out_and_named(data, checkpoint, caplog):
    rows = read_manifest(data / "test.tsv")
    longest = max(rows, key=lambda row: row.n_frames)
    limit = ("--max-source-positions", longest.n_frames - 1)
    lines = run_generate(data, checkpoint, *limit, "--skip-invalid-size-inputs-valid-test")
    assert f"left out: utterance {longest.id!r}: {longest.n_frames} frames" in caplog.text
    assert sum(line.startswith("H-") for line in lines) == 4
    assert any(line.startswith("Generate test") for line in lines)


@pytest.mark.parametrize(
    "flags",
    [("--attribution-dir", ""), ("--attribution-dir", "x", "--deletion", "")],
)
def test_an_empty_folder_name_is_refused(data, checkpoint, tmp_path, monkeypatch, flags):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=f"{flags[-2]} '': expected a folder to write to"):
        run_generate(data, checkpoint, *flags)
    assert not list(tmp_path.iterdir())
