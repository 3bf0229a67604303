import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fbk_xattn.errors import InputError, show_input_errors_in_one_line

ROOT = Path(__file__).parents[1]


@given(st.text())
def test_message_is_one_line(text):
    message = str(InputError(f"before {text} after"))
    assert len(message.splitlines()) == 1
    assert message.split() == f"before {text} after".split()


def test_words_are_kept():
    assert str(InputError("a.tsv,\n  row 3:\tx\r\n")) == "a.tsv, row 3: x"


def test_it_is_a_value_error():
    with pytest.raises(ValueError, match=r"^x$"):
        raise InputError("x")


def test_hook_is_put_in_once(monkeypatch):
    shown = []
    monkeypatch.setattr(sys, "excepthook", lambda *error: shown.append(error))
    show_input_errors_in_one_line()
    hook = sys.excepthook
    show_input_errors_in_one_line()
    assert sys.excepthook is hook
    error = KeyError("other")
    hook(KeyError, error, None)
    assert shown == [(KeyError, error, None)]


def run(code):
    """Run code after putting the hook in; return exit code and standard error."""
    code = (
        "from fbk_xattn.errors import InputError, show_input_errors_in_one_line as show\n"
        f"show()\nshow()\n{code}"
    )
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT
    )
    return process.returncode, process.stderr


def test_uncaught_input_error_prints_one_line_and_exits_with_1():
    code, errors = run("raise InputError('--beam 0:\\nexpected more')")
    assert (code, errors) == (1, "fbk_xattn: error: --beam 0: expected more\n")


def test_input_error_on_the_way_of_another_error_prints_one_line_too():
    code, errors = run("try:\n    1 / 0\nexcept Exception:\n    raise InputError('x')")
    assert (code, errors) == (1, "fbk_xattn: error: x\n")


def test_other_errors_keep_their_traceback():
    code, errors = run("raise ValueError('a bug')")
    assert code == 1
    assert "Traceback" in errors
    assert errors.endswith("ValueError: a bug\n")


def test_an_interrupt_prints_one_line_and_exits_with_130():
    code, errors = run("raise KeyboardInterrupt")
    line = "fbk_xattn: interrupted; the same command goes on from what is stored\n"
    assert (code, errors) == (130, line)


@pytest.mark.parametrize(
    ("sink", "reason"), [("pipe", "Broken pipe"), ("/dev/full", "No space left on device")]
)
def test_standard_output_that_cannot_be_written_is_one_line(sink, reason):
    code = (
        "import os, sys\n"
        "read, write = os.pipe()\n"
        "os.close(read)\n"
        f"sink = write if {sink!r} == 'pipe' else os.open('/dev/full', os.O_WRONLY)\n"
        "os.dup2(sink, 1)\n"
        "for _ in range(9999):\n    print('H-1')"
    )
    line = f"standard output: cannot be written ({reason}), expected a writable place\n"
    assert run(code) == (1, f"fbk_xattn: error: {line}")


def test_a_full_disk_elsewhere_keeps_its_traceback():
    code, errors = run("import os\nprint('H-1')\nos.write(os.open('/dev/full', 1), b'x')")
    assert code == 1
    assert "Traceback" in errors
