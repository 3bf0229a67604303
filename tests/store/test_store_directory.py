import dataclasses
import io
import json
import pickle
import re
import socket
import tempfile
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from synthetic import as_segments, make_attribution

from fbk_xattn.errors import InputError
from fbk_xattn.files import temporary_mark
from fbk_xattn.store import Attribution, AttributionStore, SegmentLevel, SegmentSaliency

ROOT = Path(__file__).parents[2]
IDS = [
    *("a", "a/1", "a/b/c", "../up", "with space", ".hidden", ".", "..", "x.npz", "100%", "%2F"),
    *("è/東", "a\\b", "a:b", "*?[x]", '"q"', "a.b", "-x", "~", "#"),
]


def assert_same(left, right):
    """Compare all fields of two attributions, arrays with their types."""
    for field in dataclasses.fields(Attribution):
        a, b = getattr(left, field.name), getattr(right, field.name)
        if isinstance(a, SegmentSaliency):
            for ours, theirs in zip(a.levels, b.levels, strict=True):
                for part in dataclasses.fields(SegmentLevel):
                    np.testing.assert_array_equal(
                        getattr(ours, part.name), getattr(theirs, part.name), err_msg=part.name
                    )
        elif isinstance(a, np.ndarray):
            np.testing.assert_array_equal(a, b, err_msg=field.name)
            assert a.dtype == b.dtype, field.name
        else:
            assert a == b, field.name
            assert type(a) is type(b), field.name


def files(store):
    return sorted(p.name for p in store.path.iterdir())


finite = st.floats(-1e6, 1e6, width=32)
texts = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"))


@st.composite
def attributions(draw):
    """Any attribution, with any of its parts."""
    S, T, F = draw(st.integers(1, 4)), draw(st.integers(1, 6)), draw(st.integers(1, 3))
    L, H, n_steps = draw(st.integers(1, 2)), draw(st.integers(1, 2)), draw(st.integers(1, 3))

    def floats(*shape):
        return draw(arrays.arrays(np.float32, shape, elements=finite))

    def level():
        n_segments = draw(st.sampled_from([1, 7, 70_000]))
        numerator = np.zeros((S, n_segments), np.float32)
        numerator[:, -1] = floats(S)
        kind = np.uint16 if n_segments < 2**16 else np.uint32
        labels = draw(arrays.arrays(kind, (T, F), elements=st.integers(0, n_segments - 1)))
        return SegmentLevel(labels, numerator, np.arange(n_segments, dtype=np.int32))

    parts = {
        "cross_attention": lambda: floats(L, H, S, n_steps),
        "encoder_saliency": lambda: floats(S, n_steps),
        "token_saliency": lambda: floats(S, S),
        "input_saliency": lambda: SegmentSaliency(
            tuple(level() for _ in range(draw(st.integers(1, 2))))
        ),
    }
    return Attribution(
        id=draw(texts.filter(lambda text: 0 < len(text.encode()) < 60)),
        **{name: draw(texts) for name in ("speaker", "src_lang", "tgt_lang", "src_text")},
        **{name: draw(texts) for name in ("tgt_text", "hypothesis")},
        tokens=tuple(draw(st.lists(texts, min_size=S, max_size=S))),
        token_ids=draw(arrays.arrays(np.int64, S)),
        positional_scores=floats(S),
        score=draw(st.floats(allow_nan=False)),
        n_prefix=draw(st.integers(0, 1)),
        frames_per_step=draw(st.integers(1, 8)),
        fbank=floats(T, F),
        **{name: make() if draw(st.booleans()) else None for name, make in parts.items()},
    )


@given(attributions())
@settings(max_examples=60, deadline=None)
def test_what_is_written_is_read_back(attribution):
    with tempfile.TemporaryDirectory() as folder:
        store = AttributionStore.create(folder, parameters={})
        store.write(attribution)
        again = AttributionStore.open(folder)
        assert again.ids() == [attribution.id]
        assert_same(again.read(attribution.id), attribution)


def test_numbers_are_stored_in_single_precision_and_read_back_as_such(store, rng):
    fields = make_attribution(rng)
    store.write(dataclasses.replace(fields, fbank=fields.fbank.astype(np.float64)))
    assert store.read("a/1").fbank.dtype == np.float32


@pytest.mark.parametrize("utterance_id", IDS)
def test_ids_of_any_form_name_one_file_in_the_store(store, rng, utterance_id):
    assert utterance_id not in store
    store.write(make_attribution(rng, id=utterance_id))
    assert utterance_id in store
    assert store.ids() == [utterance_id]
    assert store.read(utterance_id).id == utterance_id
    assert len(files(store)) == 2
    assert store.file(utterance_id).parent == store.path


def test_different_ids_never_share_a_file(store, rng):
    for number, utterance_id in enumerate(IDS):
        store.write(make_attribution(rng, id=utterance_id, score=float(number)))
    assert store.ids() == sorted(IDS)
    assert len(store) == len(IDS)
    assert [a.id for a in store] == sorted(IDS)
    for number, utterance_id in enumerate(IDS):
        assert store.read(utterance_id).score == number


@pytest.mark.parametrize("utterance_id", ["", "x" * 201, "è" * 34, "/" * 67])
def test_id_that_makes_no_file_name_is_refused(store, rng, utterance_id):
    with pytest.raises(InputError, match="1 to 200 characters"):
        store.write(make_attribution(rng, id=utterance_id))
    assert files(store) == ["meta.json"]


@pytest.mark.parametrize("host", ["n", "node-17." + "x" * 56])
def test_longest_id_can_be_written_on_any_host(store, rng, monkeypatch, host):
    monkeypatch.setattr(socket, "gethostname", lambda: host)
    store.write(make_attribution(rng, id="x" * 200))
    assert store.ids() == ["x" * 200]


def test_unknown_utterance_is_refused(store, rng):
    store.write(make_attribution(rng))
    with pytest.raises(InputError, match="no utterance 'b' among its 1"):
        store.read("b")


def test_writing_again_replaces(store, rng):
    store.write(make_attribution(rng, score=1.0))
    store.write(make_attribution(rng, score=2.0))
    assert store.read("a/1").score == 2.0
    assert len(store) == 1


def test_store_can_be_used_as_a_context(tmp_path, rng):
    with AttributionStore.create(tmp_path, parameters={}) as store:
        store.write(make_attribution(rng))
    with AttributionStore.open(tmp_path) as store:
        assert "a/1" in store


# ---- meta.json


def test_meta_has_parameters_and_provenance_of_the_first_to_come(tmp_path):
    AttributionStore.create(tmp_path / "x/y", {"seed": 1, "map": "è"}, {"command": "first"})
    AttributionStore.create(tmp_path / "x/y", {"map": "è", "seed": 1}, {"command": "second"})
    meta = json.loads((tmp_path / "x/y/meta.json").read_text(encoding="utf-8"))
    assert meta["parameters"] == {"seed": 1, "map": "è"}
    assert meta["provenance"] == {"command": "first"}
    assert AttributionStore.open(tmp_path / "x/y").meta == meta


@pytest.mark.parametrize(
    ("parameters", "name", "theirs", "ours"),
    [
        ({"seed": 1, "zeta": 9, "num_masks": 20}, "num_masks", 10, 20),
        ({"seed": 1, "num_masks": 10}, "zeta", 3, None),
        ({"seed": 1, "zeta": 3, "num_masks": 10, "alpha": 7}, "alpha", None, 7),
        ({"seed": 2, "zeta": 4, "num_masks": 10}, "seed", 1, 2),
    ],
)
def test_other_parameters_are_refused_naming_the_first(tmp_path, parameters, name, theirs, ours):
    path = tmp_path / "store"
    AttributionStore.create(path, {"seed": 1, "zeta": 3, "num_masks": 10})
    before = (path / "meta.json").read_bytes()
    with pytest.raises(InputError) as caught:
        AttributionStore.create(path, parameters)
    assert f"the store has {name} = {theirs}, this run has {ours}" in str(caught.value)
    assert str(path) in str(caught.value)
    assert (path / "meta.json").read_bytes() == before


def test_parameters_that_both_have_are_named_before_those_of_one(tmp_path):
    AttributionStore.create(tmp_path, {"explain": ["input"], "input_rate": 3})
    with pytest.raises(InputError, match="the store has explain = "):
        AttributionStore.create(tmp_path, {"explain": ["encoder"], "encoder_rate": 3})


@pytest.mark.parametrize("empty", [True, False])
def test_an_empty_store_of_other_parameters_says_how_to_begin_anew(store, rng, empty):
    if not empty:
        store.write(make_attribution(rng))
    with pytest.raises(InputError) as caught:
        AttributionStore.create(store.path, {"other": 1})
    advice = f"or {store.path / 'meta.json'} deleted (the folder holds no utterance)"
    assert (advice in str(caught.value)) == empty


@pytest.mark.parametrize("leftovers", [False, True])
def test_a_complete_store_that_can_only_be_read_can_be_gone_on_with(
    store, rng, monkeypatch, leftovers
):
    store.write(make_attribution(rng))
    if leftovers:
        mark = temporary_mark(store.file("a/1"))
        for name in ("meta.json", mark):
            (store.path / f".{name}.host.7.tmp").touch()

    def read_only(*_, **__):
        raise OSError(30, "Read-only file system")

    for change in ("unlink", "write_text", "replace"):
        monkeypatch.setattr(Path, change, read_only)
    assert len(AttributionStore.create(store.path, store.meta["parameters"])) == 1


def test_parameters_are_compared_as_json_has_them(tmp_path):
    for _ in range(2):
        AttributionStore.create(tmp_path, {"rates": (400, 500), "p": 0.1, "cap": None})


@pytest.mark.parametrize("kind", ["missing", "empty folder", "file"])
def test_what_is_no_store_is_refused(tmp_path, kind):
    path = tmp_path / "x"
    if kind == "empty folder":
        path.mkdir()
    elif kind == "file":
        path.touch()
    with pytest.raises(InputError, match=r"x: not an attribution store, .*meta\.json"):
        AttributionStore.open(path)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"3", b"{}", b"\xff\xfe", b'{"format_version": 1}',
     b'{"format_version": 1, "parameters": 3}'],
)  # fmt: skip
def test_damaged_meta_is_refused(tmp_path, content):
    (tmp_path / "meta.json").write_bytes(content)
    for use in (AttributionStore.open, lambda path: AttributionStore.create(path, {"seed": 1})):
        with pytest.raises(InputError, match=r"meta\.json: unreadable"):
            use(tmp_path)


def test_store_of_another_version_is_refused(tmp_path):
    (tmp_path / "meta.json").write_text('{"format_version": 2, "parameters": {}}')
    with pytest.raises(InputError, match=r"meta\.json: format version 2, expected 1"):
        AttributionStore.open(tmp_path)


@pytest.mark.parametrize("place", ["file", "file/x"])
def test_folder_that_cannot_be_made_is_refused(tmp_path, place):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot write there"):
        AttributionStore.create(tmp_path / place, {})


# ---- files that are damaged, hostile or compared


def test_same_attribution_gives_the_same_bytes_at_any_time(tmp_path, monkeypatch):
    written = []
    for name, now in (("x", 1.5e9), ("y", 1.7e9)):
        monkeypatch.setattr(time, "time", lambda now=now: now)
        store = AttributionStore.create(tmp_path / name, {"seed": 1})
        store.write(make_attribution(np.random.default_rng(0)))
        written.append({p.name: p.read_bytes() for p in store.path.iterdir()})
    assert written[0] == written[1]


def small_attribution():
    return make_attribution(np.random.default_rng(0), S=3, T=5, F=2, L=1, H=1)


@pytest.fixture(scope="module")
def small_store(tmp_path_factory):
    store = AttributionStore.create(tmp_path_factory.mktemp("store"), {})
    store.write(small_attribution())
    store.file("a/1").rename(store.path / "whole")
    return store


@given(data=st.data())
@settings(max_examples=300, deadline=None)
def test_damaged_file_is_named_or_reads_the_same(small_store, data):
    store = small_store
    whole = (store.path / "whole").read_bytes()
    damaged = bytearray(whole)
    position = data.draw(st.integers(0, len(whole) - 1))
    damaged[position] ^= data.draw(st.integers(1, 255))
    if data.draw(st.booleans()):
        damaged = damaged[: data.draw(st.integers(0, len(whole)))]
    store.file("a/1").write_bytes(damaged)
    try:
        read = store.read("a/1")
    except InputError as error:
        assert str(store.file("a/1")) in str(error)  # noqa: PT017 - it may also be readable
    else:
        assert_same(read, small_attribution())


def test_arrays_that_a_damaged_directory_of_the_file_leaves_out_are_missed(small_store):
    """A length in an entry of the zip's directory may make it swallow those after it."""
    store = small_store
    whole = (store.path / "whole").read_bytes()
    starts = [match.start() for match in re.finditer(b"PK\x01\x02", whole)]
    starts.append(whole.rindex(b"PK\x05\x06"))
    assert len(starts) > 15
    for number, start in enumerate(starts[:-2]):
        for after in starts[number + 2 :]:
            damaged = bytearray(whole)
            swallowed = after - starts[number + 1]
            damaged[start + 32 : start + 34] = swallowed.to_bytes(2, "little")
            store.file("a/1").write_bytes(damaged)
            with pytest.raises(InputError, match="delete it and run again to replace it"):
                store.read("a/1")


def without(array_name):
    """Return the bytes of an otherwise complete file without one array."""
    from fbk_xattn.store.serialization import to_arrays

    made = to_arrays(make_attribution(np.random.default_rng(0)))
    del made[array_name]
    written = io.BytesIO()
    np.savez_compressed(written, **made)
    return written.getvalue()


def single_array():
    written = io.BytesIO()
    np.save(written, np.zeros(3))
    return written.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no zip",
        b"PK\x03\x04",
        single_array(),
        without("tokens"),
        without("input_numerator_0"),
    ],
    ids=["empty", "text", "cut", "one array", "no tokens", "no numerator"],
)
def test_file_of_something_else_is_named(store, rng, content):
    store.write(make_attribution(rng))
    store.file("a/1").write_bytes(content)
    with pytest.raises(InputError, match=r"a%2F1\.npz: unreadable .*delete it"):
        store.read("a/1")


class Marker:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("form", ["array in the archive", "whole file"])
def test_pickle_is_refused_and_not_run(store, rng, tmp_path, form):
    store.write(make_attribution(rng))
    file = store.file("a/1")
    marker = tmp_path / "ran"
    if form == "whole file":
        file.write_bytes(pickle.dumps(Marker(marker)))
    else:
        hostile = io.BytesIO()
        np.save(hostile, np.array([Marker(marker)], dtype=object), allow_pickle=True)
        with zipfile.ZipFile(file) as archive:
            parts = {name: archive.read(name) for name in archive.namelist()}
        parts["tokens.npy"] = hostile.getvalue()
        with zipfile.ZipFile(file, "w") as archive:
            for name, content in parts.items():
                archive.writestr(name, content)
    with pytest.raises(InputError, match=r"a%2F1\.npz: unreadable"):
        store.read("a/1")
    assert not marker.exists()


def test_labels_are_stored_small(store, rng):
    """16 bits are enough for the segments of an utterance."""
    store.write(make_attribution(rng, input_saliency=as_segments(np.ones((2, 4, 5)))))
    (level,) = store.read("a/1").input_saliency.levels
    assert level.labels.dtype == np.uint16
