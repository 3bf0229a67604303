import warnings
import zlib
from pathlib import Path

import matplotlib as mpl
import pytest
from matplotlib.figure import Figure
from synthetic import make_attribution

from fbk_xattn.errors import InputError
from fbk_xattn.report.figures import draw_maps, draw_spectrogram, save_figure
from fbk_xattn.report.figures.fonts import fallback_fonts, printable, without_glyph

STARTS = {".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF"}
RIGHT_TO_LEFT = ("<lang:ar>", "▁مرحبا", "▁שלום", "$a$", "▁中文", "▁हि", "</s>")


@pytest.fixture
def attribution(rng):
    return make_attribution(rng, tokens=RIGHT_TO_LEFT, id="$x$", hypothesis="مرحبا <b>\x07\n中")


@pytest.mark.parametrize("suffix", STARTS)
def test_suffix_says_the_format_and_nothing_is_warned_of(attribution, tmp_path, suffix, capfd):
    file = tmp_path / "new" / f"figure{suffix.upper()}"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        missing = save_figure(draw_maps([attribution]), file)
    assert file.read_bytes().startswith(STARTS[suffix])
    assert list(file.parent.iterdir()) == [file]
    assert missing == without_glyph(["".join(RIGHT_TO_LEFT)])
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("suffix", STARTS)
@pytest.mark.parametrize("draw", [lambda a: draw_maps([a]), draw_spectrogram])
def test_same_input_same_bytes(attribution, tmp_path, suffix, draw, monkeypatch):
    files = [tmp_path / f"{number}{suffix}" for number in range(2)]
    for number, file in enumerate(files):
        monkeypatch.setenv("SOURCE_DATE_EPOCH", str(number))
        with mpl.rc_context({"font.size": 20 + number, "text.usetex": bool(number)}):
            save_figure(draw(attribution), file)
    assert files[0].read_bytes() == files[1].read_bytes()
    assert b"Date" not in files[0].read_bytes()


def test_text_stays_text(attribution, tmp_path):
    save_figure(draw_maps([attribution]), tmp_path / "a.svg")
    svg = (tmp_path / "a.svg").read_text()
    for text in (
        "_مرحبا",
        "$a$",
        "_中文",
        "Input saliency",
        "&lt;b&gt;\N{REPLACEMENT CHARACTER} 中",
    ):
        assert text in svg
    save_figure(draw_maps([attribution]), tmp_path / "a.pdf")
    pdf = (tmp_path / "a.pdf").read_bytes()
    assert b"/Subtype /Type0" in pdf or b"/Subtype /TrueType" in pdf
    assert b"/Type3" not in pdf
    assert zlib.crc32(pdf)


def test_settings_of_the_user_are_left_as_they_were(attribution, tmp_path):
    with mpl.rc_context({"font.size": 33.0}):
        save_figure(draw_maps([attribution]), tmp_path / "a.png")
        assert mpl.rcParams["font.size"] == 33.0


@pytest.mark.parametrize("name", ["figure.jpg", "figure"])
def test_another_suffix_is_input_error(attribution, tmp_path, name):
    with pytest.raises(
        InputError, match=f"{name}: expected a file name ending in .png, .svg, .pdf"
    ):
        save_figure(draw_maps([attribution]), tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_png_that_matplotlib_cannot_draw_is_input_error(tmp_path):
    with pytest.raises(InputError, match="a figure of 300 in is too large for PNG"):
        save_figure(Figure(figsize=(5, 300)), tmp_path / "a.png")
    assert not list(tmp_path.iterdir())


def test_a_failed_write_leaves_the_old_file_and_nothing_else(attribution, tmp_path, monkeypatch):
    file = tmp_path / "figure.png"
    file.write_text("old")

    def full_disk(_figure, path, **_):
        Path(path).write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Figure, "savefig", full_disk)
    with pytest.raises(InputError, match=r"figure.png: cannot be written \(No space left"):
        save_figure(draw_maps([attribution]), file)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


def test_printable():
    assert printable(" a\t b\n\x00c\u202ed ") == "a b �c�d"
    assert printable("می‌خواهم") == "می‌خواهم"  # a format character that belongs to the word


def test_fonts_are_looked_for_only_where_letters_lack():
    assert fallback_fonts(["abc", "ö Ж ش"]) == []
    assert without_glyph(["abc\u200c"]) == []
    private = "\U000f1234"  # no font has a letter for private use there
    assert without_glyph(["a" + private]) == [private]
    assert fallback_fonts(["a" + private]) == []


def test_a_font_that_has_the_letter_is_taken(monkeypatch):
    from fbk_xattn.report.figures import fonts

    files = {"Has": "has.ttf", "Lacks": "lacks.ttf"}
    there = {"has.ttf": frozenset("字"), "lacks.ttf": frozenset("x")}
    monkeypatch.setattr(fonts, "_regular_fonts", lambda: tuple(sorted(files.items(), reverse=True)))
    monkeypatch.setattr(fonts, "_characters", lambda file: there.get(file, frozenset("a")))
    assert fallback_fonts(["a字"]) == ["Has"]
    assert without_glyph(["a字語"]) == ["語"]
