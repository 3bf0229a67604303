import tempfile
from dataclasses import astuple, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fbk_xattn.data.manifest import COLUMNS, ManifestRow, read_manifest, write_manifest
from fbk_xattn.errors import InputError

HEADER = "id\taudio\tn_frames\tspeaker\tsrc_lang\tsrc_text\ttgt_lang\ttgt_text"
ROW = "a\ta.wav\t12\tann\ten\thello\tit\tciao"

texts = st.text(st.characters(exclude_characters="\t\r\n", exclude_categories=("Cs",)))
names = texts.filter(str.strip)
manifests = st.lists(
    st.builds(
        ManifestRow,
        id=names,
        audio=names,
        n_frames=st.integers(1, 10**9),
        speaker=texts,
        src_lang=texts,
        src_text=texts,
        tgt_lang=texts,
        tgt_text=texts,
    ),
    min_size=1,
    unique_by=lambda row: row.id,
)


def row_of(**fields):
    row = ManifestRow("a", "a.wav", 12, "ann", "en", "hello", "it", "ciao")
    return replace(row, **fields)


@pytest.fixture
def manifest(tmp_path):
    """Write lines to a manifest and return its path."""

    def write(*lines, encoding="utf-8"):
        path = tmp_path / "test.tsv"
        path.write_bytes("".join(f"{line}\n" for line in lines).encode(encoding))
        return path

    return write


def refused(path):
    """Return the one-line message with which the manifest is refused."""
    with pytest.raises(InputError) as caught:
        read_manifest(path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


@given(manifests)
def test_what_is_written_is_read_back(rows):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "test.tsv"
        write_manifest(path, rows)
        assert read_manifest(path) == rows
        assert [p.name for p in Path(folder).iterdir()] == ["test.tsv"]


@pytest.mark.parametrize(
    "text", ['he said "hi"', '"', "l'ami", "Zürich 東京 🎧", "a\\tb", " spaces ", "#x", "\u2028"]
)
def test_texts_are_taken_as_they_are(manifest, text):
    path = manifest(HEADER, ROW.replace("hello", text), ROW.replace("a\ta.wav", "b\tb.wav"))
    assert [row.src_text for row in read_manifest(path)] == [text, "hello"]


def test_cells_go_to_the_fields_named_in_the_header(manifest):
    path = manifest(HEADER, ROW)
    assert read_manifest(path) == [row_of()]


def test_columns_may_come_in_any_order_and_others_are_ignored(manifest):
    columns = ["extra", *reversed(COLUMNS)]
    values = {**dict(zip(COLUMNS, astuple(row_of()), strict=True)), "extra": "x"}
    path = manifest("\t".join(columns), "\t".join(str(values[c]) for c in columns))
    assert read_manifest(path) == [row_of()]


def test_speaker_may_be_absent(manifest):
    path = manifest(HEADER.replace("\tspeaker", ""), ROW.replace("\tann", ""))
    assert read_manifest(path) == [row_of(speaker="")]


def test_byte_order_mark_is_not_part_of_the_first_column(manifest):
    path = manifest(HEADER, ROW, encoding="utf-8-sig")
    assert read_manifest(path) == [row_of()]


def test_windows_line_ends_and_blank_lines_are_no_rows(tmp_path):
    path = tmp_path / "test.tsv"
    path.write_bytes(f"{HEADER}\r\n\r\n{ROW}\r\n\r\n".encode())
    assert read_manifest(path) == [row_of()]


def test_missing_manifest_lists_those_beside_it(tmp_path):
    for name in ("dev.tsv", "train.tsv", "notes.txt"):
        (tmp_path / name).touch()
    message = refused(tmp_path / "tset.tsv")
    assert "dev.tsv, train.tsv" in message
    assert "notes.txt" not in message


@pytest.mark.parametrize("folder", ["", "nowhere/"])
def test_missing_manifest_in_a_folder_without_any(tmp_path, folder):
    assert "no manifest" in refused(tmp_path / f"{folder}test.tsv")


@pytest.mark.parametrize("lines", [(), ("",), (HEADER,), (HEADER, "", "")])
def test_manifest_without_rows_is_refused(manifest, lines):
    assert "empty manifest" in refused(manifest(*lines))


@pytest.mark.parametrize("column", [c for c in COLUMNS if c != "speaker"])
def test_missing_column_is_named(manifest, column):
    position = COLUMNS.index(column)
    cut = [
        "\t".join(c for i, c in enumerate(line.split("\t")) if i != position)
        for line in (HEADER, ROW)
    ]
    assert f"missing column {column};" in refused(manifest(*cut))


@pytest.mark.parametrize("column", COLUMNS)
def test_column_named_twice_is_refused(manifest, column):
    message = refused(manifest(f"{HEADER}\t{column}", f"{ROW}\tx"))
    assert f"column {column} is named twice" in message


def test_ignored_columns_may_have_one_name(manifest):
    assert read_manifest(manifest(f"{HEADER}\t\t", f"{ROW}\tx\ty")) == [row_of()]


@pytest.mark.parametrize(("row", "count"), [(f"{ROW}\tmore", 9), (ROW.rsplit("\t", 1)[0], 7)])
def test_row_with_another_number_of_cells_is_named(manifest, row, count):
    message = refused(manifest(HEADER, ROW.replace("a\t", "z\t", 1), row))
    assert f"row 3: {count} cells, expected 8" in message


@pytest.mark.parametrize("column", ["id", "audio"])
@pytest.mark.parametrize("value", ["", "  "])
def test_empty_id_or_audio_is_refused(manifest, column, value):
    row = "\t".join(str(cell) for cell in astuple(row_of(**{column: value})))
    assert f"row 2: {column} is empty" in refused(manifest(HEADER, row))


@pytest.mark.parametrize("n_frames", ["x", "", "1.5", "-3", "0", " 7", "1e3", "²", "nan"])
def test_n_frames_that_is_no_positive_whole_number_is_refused(manifest, n_frames):
    message = refused(manifest(HEADER, ROW.replace("12", n_frames)))
    assert "row 2 (utterance 'a')" in message
    assert f"n_frames is {n_frames!r}" in message


def test_duplicate_id_names_both_rows(manifest):
    other = ROW.replace("a\ta.wav", "b\tb.wav")
    message = refused(manifest(HEADER, ROW, other, ROW))
    assert "row 4: id 'a' is already used in row 2" in message


def test_rows_are_counted_with_blank_lines(manifest):
    message = refused(manifest(HEADER, "", ROW, "", ROW))
    assert "row 5: id 'a' is already used in row 3" in message


def test_text_that_is_not_utf8_is_refused(manifest):
    assert "UTF-8" in refused(manifest(HEADER, ROW.replace("hello", "così"), encoding="latin-1"))


def test_cell_that_is_no_text_is_refused(manifest):
    """A binary file, or a manifest whose line ends got lost."""
    assert "131072" in refused(manifest(HEADER, ROW.replace("hello", "x" * 200_000)))


@pytest.mark.parametrize("sign", ["\t", "\n", "\r"])
@pytest.mark.parametrize("column", ["id", "tgt_text"])
def test_signs_that_would_break_a_row_are_refused_and_nothing_is_written(tmp_path, sign, column):
    path = tmp_path / "test.tsv"
    rows = [row_of(id="z"), row_of(**{column: f"x{sign}y"})]
    with pytest.raises(InputError, match=f"{column} holds a tab or a line break"):
        write_manifest(path, rows)
    assert list(tmp_path.iterdir()) == []


def test_failed_writing_leaves_the_old_manifest_alone(tmp_path):
    path = tmp_path / "test.tsv"
    write_manifest(path, [row_of()])
    with pytest.raises(UnicodeEncodeError):
        write_manifest(path, [row_of(id="b"), row_of(src_text="\ud800")])
    assert read_manifest(path) == [row_of()]
    assert [p.name for p in tmp_path.iterdir()] == ["test.tsv"]
