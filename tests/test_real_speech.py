"""The main job on real speech: Debian's telephone prompts to a correlation table and a picture."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
from pathlib import Path

import browser as browsers
import jiwer
import numpy as np
import pytest
from fairseq_runs import run_generate, run_train
from shipped_model import MODEL, join_model

from fbk_xattn.analysis import correlate_targets
from fbk_xattn.analysis.agreement import pearson_by_token
from fbk_xattn.analysis.maps import input_cells
from fbk_xattn.cli.main import main
from fbk_xattn.data.features import load_features
from fbk_xattn.data.manifest import read_manifest, write_manifest
from fbk_xattn.store import AttributionStore

PACKAGES = [
    *(f"asterisk-core-sounds-{language}-g722" for language in ("en", "it")),
    *(f"asterisk-core-sounds-{language}" for language in ("en", "it")),
]
DEMO = ("conf-full", "auth-incorrect")


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    """The four packages, unpacked."""
    given = os.environ.get("FBK_XATTN_SOUNDS")
    if given:
        return Path(given)
    if shutil.which("apt-get") is None:
        pytest.skip("no apt-get to fetch speech with; FBK_XATTN_SOUNDS can name a folder with it")
    folder = tmp_path_factory.mktemp("sounds")
    subprocess.run(["apt-get", "download", *PACKAGES], cwd=folder, check=True, capture_output=True)
    for package in folder.glob("*.deb"):
        subprocess.run(["dpkg-deb", "-x", package, folder / "unpacked"], check=True)
    return folder / "unpacked"


@pytest.fixture(scope="module")
def speech(sounds, tmp_path_factory):
    """A data folder made with the command line, with a training and a test split of a few rows."""
    corpus, data = tmp_path_factory.mktemp("prompts"), tmp_path_factory.mktemp("data")
    assert main(["prompts", "--audio-dir", str(sounds), "--output", str(corpus)]) == 0
    splits = {}
    for split in ("train", "dev", "test"):
        manifests = sorted(corpus.glob(f"{split}_*.tsv"))
        assert [m.stem for m in manifests] == [
            f"{split}_{task}" for task in ("asr_en", "asr_it", "st_en_it", "st_it_en")
        ]
        splits[split] = [row for manifest in manifests for row in read_manifest(manifest)]
        for manifest in manifests:
            manifest.unlink()
    assert not {row.audio for row in splits["train"]} & {row.audio for row in splits["test"]}
    assert not {row.src_text for row in splits["train"]} & {row.src_text for row in splits["test"]}
    write_manifest(corpus / "train.tsv", splits["train"][::25])
    write_manifest(corpus / "dev.tsv", splits["dev"][:2])
    demo = [row for row in splits["test"] if row.id.split("/")[1] in DEMO]
    assert len(demo) == 8  # two prompts, four tasks
    write_manifest(corpus / "test.tsv", demo)
    assert main(["prepare", str(corpus), str(data), "--vocabulary-size", "100"]) == 0
    return corpus, data


def test_features_are_those_of_the_audio(speech):
    corpus, data = speech
    audio, prepared = read_manifest(corpus / "test.tsv")[0], read_manifest(data / "test.tsv")[0]
    features = load_features(data / prepared.audio)
    np.testing.assert_array_equal(features, load_features(corpus / audio.audio))
    assert len(features) == prepared.n_frames == audio.n_frames


def test_the_shipped_model_hears_and_its_late_layers_attend_to_what_matters(speech, tmp_path):
    data, store = tmp_path / "data", tmp_path / "store"
    assert main(["prepare", str(speech[0]), str(data), "--vocabulary", str(MODEL)]) == 0
    run_generate(
        data, join_model(tmp_path), "--attribution-dir", store, "--save-cross-attention",
        "--explain", "input", "encoder", "--num-masks", "150", "--max-tokens", "4000",
        "--beam", "5", "--max-len-b", "200", "--no-repeat-ngram-size", "5",
    )  # fmt: skip
    with AttributionStore.open(store) as opened:
        heard = {each.id: each.hypothesis for each in opened}
        tables = correlate_targets(opened)
    said = {row.id: row.tgt_text for row in read_manifest(data / "test.tsv") if "asr" in row.id}
    errors = jiwer.wer(list(said.values()), [heard[name] for name in said])
    assert errors < 0.4, heard
    for target, least in (("input", 0.1), ("encoder", 0.3)):
        heads_averaged = tables[target].mean[:, -1]  # of each layer, then of all
        assert heads_averaged[-1] > least, target
        assert heads_averaged[-2] > heads_averaged[0] + 0.1, target


def test_maps_in_bf16_are_those_in_fp32(speech, tmp_path):
    data = tmp_path / "data"
    assert main(["prepare", str(speech[0]), str(data), "--vocabulary", str(MODEL)]) == 0
    rows = [row for row in read_manifest(data / "test.tsv") if row.id == "asr-it/auth-incorrect"]
    write_manifest(data / "test.tsv", rows)
    maps = {}
    for precision in ("fp32", "bf16"):
        run_generate(
            data, join_model(tmp_path), "--attribution-dir", tmp_path / precision,
            "--explain", "input", "encoder", "--num-masks", "100", "--beam", "5",
            "--max-len-b", "200", "--max-tokens", "4000", "--explanation-precision", precision,
        )  # fmt: skip
        with AttributionStore.open(tmp_path / precision) as store:
            (explained,) = store
        maps[precision] = [explained.input_saliency.dense(), explained.encoder_saliency]
    for single, half in zip(maps["fp32"], maps["bf16"], strict=True):
        correlations = pearson_by_token(single, half)
        # The language tag's too, which hardly depends on the speech.
        assert correlations.min() > 0.98, correlations
        assert np.median(correlations) > 0.999


def test_from_training_to_table_and_picture(speech, tmp_path, capsys):
    corpus, data = speech
    flags = ("--max-tokens", "3000", "--max-update", "30")
    run_train(data, tmp_path / "checkpoints", *flags)
    model = tmp_path / "model.pt"
    checkpoints = sorted(map(str, (tmp_path / "checkpoints").glob("checkpoint[0-9]*.pt")))
    inputs = ["--inputs", *checkpoints[-2:]]
    assert main(["average-checkpoints", *inputs, "--output", str(model)]) == 0

    store = tmp_path / "store"
    run_generate(
        data, model, "--attribution-dir", store, "--save-cross-attention",
        "--explain", "input", "encoder", "--num-masks", "30", "--max-tokens", "4000",
    )  # fmt: skip
    rows = {row.id: row for row in read_manifest(data / "test.tsv")}
    attributions = list(AttributionStore.open(store))
    assert {attribution.id for attribution in attributions} == set(rows)
    for attribution in attributions:
        np.testing.assert_allclose(attribution.cross_attention.sum(-1), 1.0, atol=1e-5)
        assert attribution.input_saliency.dense().max() > 0

    capsys.readouterr()
    assert main(["correlate", str(store), "--format", "csv"]) == 0
    table = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert [(row["target"], row["layer"]) for row in table] == [
        (target, layer) for target in ("input", "encoder") for layer in ("1", "2", "avg")
    ]
    assert all(-1 <= float(row["head_1"]) <= 1 for row in table)

    picture = tmp_path / "picture.png"
    assert main(["plot", str(store), "--id", "asr-it/conf-full", "--output", str(picture)]) == 0
    assert picture.read_bytes().startswith(b"\x89PNG")

    report = tmp_path / "report.html"
    flags = ["--audio", "--manifest", str(corpus / "test.tsv"), "--output", str(report)]
    assert main(["report", str(store), *flags]) == 0
    shown_in_a_browser(report, attributions[0])


def shown_in_a_browser(report, attribution):
    if not browsers.available():
        pytest.skip(browsers.MISSING)
    page = browsers.Browser()
    try:
        page.open(report)
        assert page.one("#utterance-title").text == attribution.id
        before = page.js("return element('cells').toDataURL()")
        page.hover('.token[data-row="1"]')
        assert page.js("return element('cells').toDataURL()") != before
        cells = input_cells(attribution)[1]
        frame, mel_bin = map(int, np.unravel_index(cells.argmax(), cells.shape))
        page.js("readCell(arguments[0], arguments[1])", frame, mel_bin)
        found = page.js("return {...element('readout').dataset}")
        error = abs(float(found["saliency"]) - cells[frame, mel_bin])
        assert error <= float(found["error"]) + 1e-6
        page.wait("return document.querySelector('audio').duration > 0")
        page.screenshot("report-real-speech.png")
        assert page.logs() == ([], [report.as_uri()])
    finally:
        page.close()
