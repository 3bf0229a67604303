import pytest

from fbk_xattn.errors import InputError
from fbk_xattn.files import whole_file, write_text


def test_text_replaces_what_was_there(tmp_path):
    file = tmp_path / "new" / "table.md"
    write_text(file, "old\n")
    write_text(file, "Wörter\n")
    assert file.read_bytes() == "Wörter\n".encode()
    assert list(file.parent.iterdir()) == [file]


def test_who_is_reading_the_old_file_reads_it_to_its_end(tmp_path):
    file = tmp_path / "table.md"
    file.write_text("old")
    with file.open() as reader:
        write_text(file, "new")
        assert reader.read() == "old"


def test_an_exception_leaves_the_old_file_and_nothing_else(tmp_path):
    file = tmp_path / "table.md"
    file.write_text("old")
    with pytest.raises(KeyError), whole_file(file) as temporary:  # noqa: PT012
        temporary.write_text("half")
        raise KeyError
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(InputError, match="is a folder, expected the name of a file"):
        write_text(tmp_path, "text")


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"table\.md: cannot be written .*writable"):
        write_text(tmp_path / "file" / "table.md", "text")
