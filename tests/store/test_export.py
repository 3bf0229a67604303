import dataclasses
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from synthetic import as_segments, make_attribution

from fbk_xattn.errors import InputError
from fbk_xattn.store import AttributionStore
from fbk_xattn.store.export import export_h5

ROOT = Path(__file__).parents[2]
PUBLISHED = ROOT / "tests" / "golden" / "explanation.h5"
NAMES = {"fbank_heatmap", "tgt_embed_heatmap", "tgt_text", "src_text", "n_masks"}


@pytest.fixture
def store(tmp_path):
    return AttributionStore.create(tmp_path / "store", parameters={"--num-masks": 60})


def read_as_published_scripts_do(file):
    """Return the maps and texts by row: the loop of scripts for the published files."""
    explanations = {}
    with h5py.File(file, "r") as h5:
        for key in h5:
            group = h5[key]
            explanations[int(key)] = {
                "fbank_heatmap": group["fbank_heatmap"][()],
                "tgt_embed_heatmap": group["tgt_embed_heatmap"][()],
                "tgt_text": [token.decode("UTF-8") for token in group["tgt_text"][()].tolist()],
                "src_text": group["src_text"][()].decode("UTF-8"),
                "n_masks": int(group["n_masks"][()]),
            }
    return explanations


def description(dataset):
    """Return all that a reader can tell of a dataset but its values."""
    text = h5py.check_string_dtype(dataset.dtype)
    return {
        "dtype": text or dataset.dtype.str,
        "shape": dataset.shape,
        "maxshape": dataset.maxshape,
        "chunks": dataset.chunks,
        "compression": (dataset.compression, dataset.compression_opts, dataset.shuffle),
        "attributes": dict(dataset.attrs),
    }


def test_file_is_as_the_published_system_writes_it(store, rng, tmp_path):
    with h5py.File(PUBLISHED, "r") as published:
        theirs = published["0"]
        eos, *tokens = theirs["tgt_text"].asstr()[()]
        saliency = theirs["fbank_heatmap"][()]
        S, T, F = saliency.shape
        attribution = make_attribution(
            rng,
            S=S,
            T=T,
            F=F,
            id="en-vm-nomore",
            src_text="No more messages.",
            tokens=(*tokens, eos),
            input_saliency=as_segments(saliency),
        )
        store.write(attribution)
        export_h5(store, {"en-vm-nomore": 0}, tmp_path / "ours.h5")
        with h5py.File(tmp_path / "ours.h5", "r") as file:
            assert list(file) == ["0"]
            assert dict(file.attrs) == dict(published.attrs)
            ours = file["0"]
            assert set(ours) == set(theirs) == NAMES
            for name in NAMES:
                assert description(ours[name]) == description(theirs[name]), name
                np.testing.assert_array_equal(ours[name][()], theirs[name][()], err_msg=name)
            assert dict(ours.attrs) == {"id": "en-vm-nomore"}


def test_published_readers_get_the_maps_of_the_store(store, rng, tmp_path):
    attributions = [
        make_attribution(rng, id="è/東", S=4, src_text="più"),
        make_attribution(rng, id="b", S=1, T=1, tokens=("</s>",), n_prefix=0),
    ]
    for attribution in attributions:
        store.write(attribution)
    export_h5(store, {"b": 12, "è/東": 3}, tmp_path / "new" / "maps.h5")
    read = read_as_published_scripts_do(tmp_path / "new" / "maps.h5")
    assert set(read) == {3, 12}
    for row, attribution in zip((3, 12), attributions, strict=True):
        S = len(attribution.tokens)
        ours = read[row]
        np.testing.assert_array_equal(
            ours["fbank_heatmap"], store.read(attribution.id).input_saliency.dense()
        )
        np.testing.assert_array_equal(ours["tgt_embed_heatmap"], np.zeros((S, S, 1)))
        assert ours["n_masks"] == 60
    assert read[3]["tgt_text"] == ["</s>", "<lang:de>", "▁w0", "▁w1"]
    assert read[12]["tgt_text"] == ["</s>"]
    assert (read[3]["src_text"], read[12]["src_text"]) == ("più</s>", "some words</s>")
    with h5py.File(tmp_path / "new" / "maps.h5", "r") as file:
        assert [file[name].attrs["id"] for name in ("3", "12")] == ["è/東", "b"]
        assert file["3/src_text"].asstr()[()] == "più</s>"


def test_saliency_of_previous_tokens_is_exported_where_there_is_one(store, rng, tmp_path):
    tokens = np.tril(rng.random((5, 5))).astype(np.float32)
    store.write(make_attribution(rng, id="a", S=5, token_saliency=tokens))
    store.write(make_attribution(rng, id="b", S=5))
    export_h5(store, {"a": 0, "b": 1}, tmp_path / "x.h5")
    read = read_as_published_scripts_do(tmp_path / "x.h5")
    assert read[0]["tgt_embed_heatmap"].dtype == np.float32
    np.testing.assert_array_equal(read[0]["tgt_embed_heatmap"], tokens[:, :, None])
    np.testing.assert_array_equal(read[1]["tgt_embed_heatmap"], np.zeros((5, 5, 1)))


def test_progress_is_told(store, rng, tmp_path):
    for name in "ab":
        store.write(make_attribution(rng, id=name))
    told = []
    export_h5(store, {"b": 0, "a": 1}, tmp_path / "x.h5", lambda *counts: told.append(counts))
    assert told == [(1, 2), (2, 2)]


def test_one_utterance_is_read_at_a_time(store, rng, tmp_path, monkeypatch):
    for name in "ab":
        store.write(make_attribution(rng, id=name))
    events = []
    read = store.read
    monkeypatch.setattr(store, "read", lambda name: events.append(name) or read(name))
    export_h5(
        store, {"a": 0, "b": 1}, tmp_path / "x.h5", lambda done, _: events.append(f"wrote {done}")
    )
    assert events == ["a", "wrote 1", "b", "wrote 2"]


def damaged(attribution):
    """Return an attribution with a map of one token less than it has."""
    saliency = as_segments(attribution.input_saliency.dense()[1:])
    return dataclasses.replace(attribution, input_saliency=saliency)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda a: dataclasses.replace(a, input_saliency=None),
            r"utterance 'b': saved without input saliency, expected .* --explain input",
        ),
        (
            damaged,
            r"'b': input saliency of the shape \(6, 22, 5\), expected \(7, 22, 5\)",
        ),
        (
            lambda a: dataclasses.replace(a, token_saliency=np.zeros((6, 6), np.float32)),
            r"'b': previous-token saliency of the shape \(6, 6\), expected \(7, 7\)",
        ),
        (lambda a: dataclasses.replace(a, id="c"), "no utterance 'b'"),
    ],
)
def test_what_cannot_be_exported_leaves_the_file_as_it_was(store, rng, tmp_path, change, said):
    store.write(make_attribution(rng, id="a"))
    store.write(change(make_attribution(rng, id="b")))
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "x.h5").write_text("before")
    with pytest.raises(InputError, match=said):
        export_h5(store, {"a": 0, "b": 1}, folder / "x.h5")
    assert [file.name for file in folder.iterdir()] == ["x.h5"]
    assert (folder / "x.h5").read_text() == "before"


def test_store_that_does_not_say_how_many_masks(tmp_path, rng):
    store = AttributionStore.create(tmp_path / "store", parameters={})
    store.write(make_attribution(rng, id="a"))
    with pytest.raises(InputError, match=r"meta.json: --num-masks is None, expected"):
        export_h5(store, {"a": 0}, tmp_path / "x.h5")
    assert not (tmp_path / "x.h5").exists()


@pytest.mark.parametrize("limit", [300, 5_000, 20_000])
def test_full_disk_is_one_line_and_no_file(store, rng, tmp_path, limit):
    # In a process of its own, whose files may grow to so many bytes.
    for name in "abc":
        store.write(make_attribution(rng, id=name))
    code = (
        "import resource, sys; from fbk_xattn.cli.main import main; "
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit})); "
        "sys.exit(main(sys.argv[1:]))"
    )
    output = tmp_path / "out" / "x.h5"
    manifest = tmp_path / "a.tsv"
    columns = ("id", "audio", "n_frames", "src_text", "src_lang", "tgt_text", "tgt_lang")
    lines = [columns, *((name, "x", "1", "", "", "", "") for name in "abc")]
    manifest.write_text("\n".join("\t".join(line) for line in lines))
    command = ["export", store.path, "--manifest", manifest, "--output", output]
    result = subprocess.run(
        [sys.executable, "-c", code, *map(str, command)], cwd=ROOT, capture_output=True, text=True
    )
    assert result.returncode == 2
    assert result.stderr == (
        f"fbk-xattn: error: {output}: cannot be written (File too large), "
        "expected a writable place\n"
    )
    assert list(output.parent.iterdir()) == []


@pytest.mark.parametrize(
    "fields", [{"src_text": "a\0b"}, {"tokens": ("<t>", *"abcd", "e\0f", "</s>")}]
)
def test_texts_that_hdf5_cannot_have_are_an_error(store, rng, tmp_path, fields):
    store.write(make_attribution(rng, **fields))
    with pytest.raises(InputError, match="utterance 'a/1': a NUL character in its"):
        export_h5(store, {"a/1": 0}, tmp_path / "x.h5")
    assert not (tmp_path / "x.h5").exists()
