"""A store with every kind of utterance, its report, and a browser."""

from __future__ import annotations

import browser as browsers
import numpy as np
import pytest
import soundfile
from report_stores import EVIL, HEBREW, T, utterance
from synthetic import make_store

from fbk_xattn.cli.main import main
from fbk_xattn.data.manifest import ManifestRow, write_manifest


@pytest.fixture(scope="session")
def report_store(tmp_path_factory):
    rng = np.random.default_rng(7)
    pieces = ("▁wel", "come", "▁to", "▁the", "▁di", "rec", "tory")
    kinds = {
        "a/plain": {
            "tgt_lang": "en",
            "tokens": ("<lang:en>", *pieces, "</s>"),
            "hypothesis": "welcome to the directory",
            "tgt_text": "welcome to a directory",
        },
        "b/markup <i>&\"'": {
            "tokens": ("<lang:de>", EVIL, *(f"▁<b>{n}" for n in range(6)), "</s>"),
            "hypothesis": EVIL,
            "tgt_text": EVIL,
            "src_text": EVIL,
        },
        "c/hebrew": {
            "tgt_lang": "he",
            "hypothesis": HEBREW,
            "tgt_text": HEBREW,
            "S": 5,
            "tokens": ("<lang:he>", *("▁" + word for word in HEBREW.split()), "</s>"),
        },
        "d/long": {"S": 302},
        "e/no-encoder": {"without": ["encoder_saliency"]},
        "f/no-input": {"without": ["input_saliency"]},
        "g/no-attention": {"without": ["cross_attention"]},
        "h/empty": {"S": 2, "hypothesis": ""},
    }
    folder = tmp_path_factory.mktemp("report") / "store"
    return make_store(folder, [utterance(rng, name, **kind) for name, kind in kinds.items()])


@pytest.fixture(scope="session")
def report_corpus(report_store):
    """A manifest with audio of all utterances but one."""
    folder = report_store.path.parent / "corpus"
    folder.mkdir()
    time = np.arange(T * 160 + 240) / 16_000
    rows = []
    for number, name in enumerate(report_store.ids()):
        if name == "d/long":
            continue
        soundfile.write(folder / f"{number}.flac", 0.2 * np.sin(2000 * time), 16_000)
        rows.append(ManifestRow(name, f"{number}.flac", T, "s", "en", "x", "en", "x"))
    write_manifest(folder / "test.tsv", rows)
    return folder / "test.tsv"


@pytest.fixture(scope="session")
def report_file(report_store, report_corpus):
    file = report_store.path.parent / "report.html"
    flags = ["--audio", "--manifest", str(report_corpus)]
    assert main(["report", str(report_store.path), "-o", str(file), *flags]) == 0
    return file


@pytest.fixture(scope="session")
def chromium():
    """A browser, shared by all tests, as starting one takes a second."""
    if not browsers.available():
        pytest.skip(browsers.MISSING)
    started = browsers.Browser()
    yield started
    started.close()
