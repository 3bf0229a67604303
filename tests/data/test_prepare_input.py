"""What ``prepare`` refuses, and what is left of the folder that it was to write."""

import os
import shutil

import pytest
import soundfile

from fbk_xattn.data.manifest import read_manifest
from fbk_xattn.data.prepare import prepare
from fbk_xattn.errors import InputError


@pytest.fixture
def copy(corpus, tmp_path):
    """A corpus of its own for a test that spoils it."""
    return shutil.copytree(corpus, tmp_path / "corpus")


def replace(manifest, old, new):
    text = manifest.read_text(encoding="utf-8")
    assert old in text
    manifest.write_text(text.replace(old, new), encoding="utf-8")


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("name", ["file", "file/data"])
def test_folder_that_cannot_be_made_is_named(corpus, tmp_path, name):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=f"{name}: cannot be made .*expected .*folder"):
        prepare(corpus, tmp_path / name, vocabulary=60)


def test_vocabulary_size_that_cannot_be_is_refused_before_the_features(data, copy, tmp_path):
    folder = shutil.copytree(data, tmp_path / "data")
    before = content(folder)
    (copy / "test-3.flac").unlink()  # which would be missed first, were features computed
    with pytest.raises(InputError, match="vocabulary of 12 symbols"):
        prepare(copy, folder, vocabulary=12)
    assert content(folder) == before


def test_failed_run_keeps_the_vocabulary_of_the_one_before(data, copy, tmp_path):
    folder = shutil.copytree(data, tmp_path / "data")
    before = content(folder)
    replace(copy / "train.tsv", "grazie", "moltissime grazie a voi")
    (copy / "test-3.flac").unlink()
    with pytest.raises(InputError, match=r"test-3\.flac: no such file"):
        prepare(copy, folder, vocabulary=60)
    assert content(folder) == before


@pytest.mark.parametrize("language", ["", "e n"])
def test_language_that_is_no_code_is_refused(copy, tmp_path, language):
    replace(copy / "test.tsv", "\ten\t", f"\t{language}\t")
    with pytest.raises(InputError, match=r"test\.tsv, utterance 'test/1': src_lang is '.*expected"):
        prepare(copy, tmp_path / "data", vocabulary=60)
    assert not (tmp_path / "data").exists()


def test_language_without_a_tag_in_the_given_vocabulary_is_refused(data, copy, tmp_path):
    replace(copy / "test.tsv", "\tit\t", "\tfr\t")
    with pytest.raises(InputError, match=r"dict\.txt: no language tag <lang:fr>, expected"):
        prepare(copy, tmp_path / "data", vocabulary=data)
    assert not (tmp_path / "data").exists()


def test_audio_cut_short_is_named(copy, tmp_path, caplog):
    """soundfile reads what is there of a file, whatever its header promises."""
    samples, rate = soundfile.read(copy / "test-3.flac", dtype="int16")
    soundfile.write(copy / "cut.wav", samples, rate)
    os.truncate(copy / "cut.wav", 9_000)
    replace(copy / "test.tsv", "test-3.flac", "cut.wav")
    with caplog.at_level("WARNING"):
        prepare(copy, tmp_path / "data", vocabulary=60)
    (warning,) = [r.getMessage() for r in caplog.records if "n_frames" in r.getMessage()]
    assert "cut.wav: 26 frames, but n_frames of the manifest is " in warning
    (row,) = [r for r in read_manifest(tmp_path / "data" / "test.tsv") if r.id == "test/3"]
    assert row.n_frames == 26
