"""Features that cannot be decoded are the failure of their own utterance."""

from __future__ import annotations

import dataclasses
import re
import shutil

import numpy as np
import pytest
import soundfile
from fairseq_runs import run_generate

from fbk_xattn.data.manifest import read_manifest, write_manifest


def changed(data, folder, *changes):
    """Copy a data folder, with columns changed in the first rows of its test split."""
    shutil.copytree(data, folder)
    rows = read_manifest(folder / "test.tsv")
    for number, columns in enumerate(changes):
        rows[number] = dataclasses.replace(rows[number], **columns)
    write_manifest(folder / "test.tsv", rows)
    return folder


def test_each_fails_with_its_reason_and_the_others_are_decoded(data, checkpoint, tmp_path, caplog):
    rows = read_manifest(data / "test.tsv")
    samples = np.zeros(16_000, dtype=np.float32)
    samples[9] = np.nan
    soundfile.write(tmp_path / "nan.wav", samples, 16_000, subtype="FLOAT")
    features = np.ones((rows[1].n_frames, 80), dtype=np.float32)
    features[3, 4] = np.finfo(np.float32).min  # what np.nan_to_num makes of log 0
    np.save(tmp_path / "zeros.npy", features)
    folder = changed(
        data,
        tmp_path / "data",
        {"audio": f"{tmp_path}/nan.wav", "n_frames": 98},
        {"audio": f"{tmp_path}/zeros.npy"},
        {"n_frames": 7},
    )
    flags = ("--batch-size", "5", "--max-tokens", "4000", "--num-workers", "1")
    with caplog.at_level("INFO"), pytest.raises(SystemExit, match="3 of 5 utterances failed"):
        run_generate(folder, checkpoint, *flags)
    assert "2 decoded" in caplog.text
    for message in (
        "'test/0': .*nan.wav: samples hold NaN",
        "'test/1': .*zeros.npy: features are not finite after utterance_cmvn",
        f"'test/2': .*: {rows[2].n_frames} frames, but n_frames of the manifest is 7",
    ):
        (line,) = [r.getMessage() for r in caplog.records if re.search(message, r.getMessage())]
        assert "\n" not in line
