import multiprocessing
import os
import shutil
import signal
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml

from fbk_xattn.data.config import DataConfig, load_dictionary
from fbk_xattn.data.features import load_features
from fbk_xattn.data.manifest import read_manifest, write_manifest
from fbk_xattn.data.prepare import prepare
from fbk_xattn.errors import InputError

SPLITS = {"train": 10, "dev": 2, "test": 5}


@pytest.fixture
def copy(corpus, tmp_path):
    """A corpus of its own for a test that spoils it."""
    return shutil.copytree(corpus, tmp_path / "corpus")


def test_data_folder_is_whole_and_has_no_leftovers(data):
    assert sorted(p.name for p in data.iterdir()) == sorted(
        ["config.yaml", "dict.txt", "fbank80.zip", "spm.model", *(f"{s}.tsv" for s in SPLITS)]
    )


@pytest.mark.parametrize("split", SPLITS)
def test_manifests_point_at_the_features_of_their_audio(corpus, data, split):
    given, made = read_manifest(corpus / f"{split}.tsv"), read_manifest(data / f"{split}.tsv")
    assert len(made) == SPLITS[split]
    for before, after in zip(given, made, strict=True):
        expected = load_features(corpus / before.audio)
        assert np.array_equal(load_features(data / after.audio), expected)
        assert after.n_frames == len(expected)
        for field in ("id", "speaker", "src_lang", "src_text", "tgt_lang", "tgt_text"):
            assert getattr(after, field) == getattr(before, field)


def test_archive_is_an_uncompressed_zip_of_arrays(data):
    with zipfile.ZipFile(data / "fbank80.zip") as archive:
        assert archive.testzip() is None
        entries = archive.infolist()
    assert len(entries) == sum(SPLITS.values())
    assert {entry.compress_type for entry in entries} == {zipfile.ZIP_STORED}
    assert {entry.date_time[0] for entry in entries} == {1980}  # not the time of the run


def test_locations_are_those_that_fairseq_reads(data):
    from fairseq.data.audio.audio_utils import get_features_or_waveform

    for row in read_manifest(data / "test.tsv"):
        theirs = get_features_or_waveform(str(data / row.audio))
        assert np.array_equal(theirs, load_features(data / row.audio))


def test_config_and_vocabulary_fit_the_task(data):
    config = DataConfig(data / "config.yaml")
    assert config.prepend_tgt_lang_tag
    training = config.get_feature_transforms("train", is_train=True)["feature_transforms"]
    assert training == ["utterance_cmvn", "specaugment"]
    test = config.get_feature_transforms("test", is_train=False)["feature_transforms"]
    assert test == ["utterance_cmvn"]
    dictionary = load_dictionary(data / config.vocab_filename)
    assert 30 < len(dictionary) <= 60
    for lang in ("en", "it"):
        assert f"<lang:{lang}>" in dictionary


def test_specaugment_is_that_of_the_paper(data):
    specaugment = yaml.safe_load((data / "config.yaml").read_text())["specaugment"]
    assert specaugment["freq_mask_N"] == specaugment["time_mask_N"] == 2
    assert (specaugment["freq_mask_F"], specaugment["time_mask_T"]) == (27, 100)
    assert specaugment["time_mask_p"] == 0.2


def test_two_runs_write_identical_files(corpus, data, tmp_path):
    prepare(corpus, tmp_path, vocabulary=60)
    for file in data.iterdir():
        assert (tmp_path / file.name).read_bytes() == file.read_bytes(), file.name


def test_a_language_of_test_alone_has_a_tag(copy, tmp_path):
    rows = read_manifest(copy / "test.tsv")
    text = (copy / "test.tsv").read_text(encoding="utf-8")
    (copy / "test.tsv").write_text(text.replace("\tit\t", "\tfr\t"), encoding="utf-8")
    assert any(row.tgt_lang == "it" for row in rows)
    prepare(copy, tmp_path / "data", vocabulary=60)
    assert "<lang:fr>" in load_dictionary(tmp_path / "data" / "dict.txt")


def test_without_a_training_manifest_nothing_is_made(copy, tmp_path):
    (copy / "train.tsv").rename(copy / "other.tsv")
    with pytest.raises(InputError, match=r"corpus: no train\*\.tsv"):
        prepare(copy, tmp_path / "data", vocabulary=60)
    assert not (tmp_path / "data").exists()


def test_unreadable_audio_is_named_and_leaves_no_archive_and_no_config(copy, tmp_path):
    (copy / "test-3.flac").write_bytes(b"fLaC and nothing else")
    with pytest.raises(InputError, match=r"test-3\.flac: unreadable audio"):
        prepare(copy, tmp_path / "data", vocabulary=60)
    assert list((tmp_path / "data").iterdir()) == []


@pytest.mark.parametrize("workers", [1, 2])
def test_audio_with_samples_that_are_no_numbers_is_named(copy, tmp_path, workers):
    samples = np.zeros(16_000, dtype=np.float32)
    samples[9] = np.nan
    soundfile.write(copy / "nan.wav", samples, 16_000, subtype="FLOAT")
    text = (copy / "test.tsv").read_text(encoding="utf-8")
    (copy / "test.tsv").write_text(text.replace("test-3.flac", "nan.wav"), encoding="utf-8")
    with pytest.raises(InputError, match=r"nan\.wav: samples hold NaN"):
        prepare(copy, tmp_path / "data", vocabulary=60, workers=workers)


def test_failed_run_keeps_the_archive_of_the_one_before(copy, tmp_path):
    prepare(copy, tmp_path / "data", vocabulary=60)
    before = {p.name: p.read_bytes() for p in (tmp_path / "data").iterdir()}
    (copy / "test-3.flac").unlink()
    with pytest.raises(InputError, match=r"test-3\.flac: no such file"):
        prepare(copy, tmp_path / "data", vocabulary=60)
    assert {p.name: p.read_bytes() for p in (tmp_path / "data").iterdir()} == before


def test_audio_paths_in_folders_and_unicode_are_found(copy, tmp_path):
    folder = copy / "clips with spaces"
    folder.mkdir()
    (copy / "test-3.flac").rename(folder / "è:1.flac")
    text = (copy / "test.tsv").read_text(encoding="utf-8")
    moved = text.replace("test-3.flac", "clips with spaces/è:1.flac")
    (copy / "test.tsv").write_text(moved, encoding="utf-8")
    prepare(copy, tmp_path / "data", vocabulary=60)
    row = read_manifest(tmp_path / "data" / "test.tsv")[3]
    expected = load_features(folder / "è:1.flac")
    assert np.array_equal(load_features(tmp_path / "data" / row.audio), expected)


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def subset(copy, *splits):
    """Leave the corpus with the manifests of some splits alone."""
    for name in SPLITS.keys() - set(splits):
        (copy / f"{name}.tsv").unlink()


@pytest.mark.parametrize("location", ["fbank80.zip", "./fbank80.zip", "{data}/fbank80.zip"])
def test_manifests_of_an_archive_that_would_be_replaced_are_named(data, copy, tmp_path, location):
    folder = shutil.copytree(data, tmp_path / "data")
    text = (folder / "train.tsv").read_text(encoding="utf-8")
    there = text.replace("\tfbank80.zip:", f"\t{location.format(data=folder)}:")
    (folder / "train.tsv").write_text(there, encoding="utf-8")
    before = content(folder)
    subset(copy, "test")
    with pytest.raises(InputError) as caught:
        prepare(copy, folder, vocabulary=folder)
    assert str(caught.value) == (
        f"{folder}/fbank80.zip would be replaced, and with it the features of dev.tsv, train.tsv; "
        f"expected such manifests in {copy} too (one run prepares all splits), or another folder"
    )
    assert content(folder) == before


def test_manifests_of_other_features_stay(corpus, copy, tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    text = (corpus / "train.tsv").read_text(encoding="utf-8")
    elsewhere = text.replace("train-1.flac", f"{tmp_path}/fbank80.zip:9:9")
    (folder / "other.tsv").write_text(elsewhere, encoding="utf-8")
    (folder / "notes.tsv").write_bytes(b"fbank80.zip is of \xff\n")
    subset(copy, "train", "test")
    for _ in range(2):
        prepare(copy, folder, vocabulary=60)
    assert (folder / "other.tsv").read_text(encoding="utf-8") == elsewhere


def test_the_corpus_itself_is_no_data_folder(copy, tmp_path):
    before = content(copy)
    (tmp_path / "link").symlink_to(copy)
    for output in (copy, copy / ".." / "corpus", tmp_path / "link"):
        with pytest.raises(InputError, match=r"is CORPUS too, .*expected another folder"):
            prepare(copy, output, vocabulary=60)
    assert content(copy) == before


def prepare_and_be_killed(corpus, output, vocabulary, moment):
    """Prepare in a process that dies when it is to name its file number ``moment``."""
    replace, named = Path.replace, []

    def die(self, target):
        if len(named) == moment:
            os.kill(os.getpid(), signal.SIGKILL)
        named.append(target)
        return replace(self, target)

    Path.replace = die
    prepare(corpus, output, vocabulary)


@pytest.mark.parametrize("moment", range(8))  # archive, three manifests, two, config; none
def test_killed_between_two_files_leaves_no_manifest_of_another_archive(
    data, copy, tmp_path, moment
):
    folder = shutil.copytree(data, tmp_path / "data")
    # Without the first of its files the archive has all others elsewhere.
    write_manifest(copy / "dev.tsv", read_manifest(copy / "dev.tsv")[1:])
    process = multiprocessing.get_context("fork").Process(
        target=prepare_and_be_killed, args=(copy, folder, data, moment)
    )
    process.start()
    process.join()
    whole = moment == 7
    assert process.exitcode == (0 if whole else -signal.SIGKILL)
    assert (folder / "config.yaml").exists() == whole
    left = sorted(folder.glob("*.tsv"))
    assert len(left) == min(max(moment - 1, 0), 3)
    for path in left:
        for before, after in zip(read_manifest(copy / path.name), read_manifest(path), strict=True):
            expected = load_features(copy / before.audio)
            assert np.array_equal(load_features(folder / after.audio), expected)
    prepare(copy, folder, vocabulary=data)
    assert len(list(folder.glob("*.tsv"))) == 3
