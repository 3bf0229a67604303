import re
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest
from synthetic import make_attribution, make_store

import fbk_xattn
from fbk_xattn.cli import main as cli
from fbk_xattn.cli.main import main

ROOT = Path(fbk_xattn.__file__).parents[1]
HEAVY = "{'torch', 'fairseq', 'matplotlib'} & {name.split('.')[0] for name in sys.modules}"


def test_version(capsys):
    with pytest.raises(SystemExit, match=r"^0$"):
        main(["--version"])
    assert capsys.readouterr().out == f"fbk-xattn {fbk_xattn.__version__}\n"


def test_help_lists_every_command(capsys):
    with pytest.raises(SystemExit, match=r"^0$"):
        main(["--help"])
    out = capsys.readouterr().out
    for command in cli.COMMANDS:
        name = command.__name__.rsplit(".", 1)[-1].replace("_", "-")
        assert re.search(rf"^    {name}\b", out, re.MULTILINE)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "COMMAND"),
        (["corelate"], "'corelate'"),
        (["correlate"], "OUT"),
        (["correlate", "store", "--target", "output"], "'output'"),
        (["correlate", "store", "--agg", "2d-max"], "--agg"),
        (["plot", "store"], "--id ID or --all"),
        (["plot", "store", "--id", "a", "--all"], "--all"),
        (["plot", "store", "--all", "--layers", "one"], "'one'"),
        (["correlate", "/nowhere/at all"], "/nowhere/at all: not an attribution store"),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(capsys, arguments, said):
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("fbk-xattn: error: ")
    assert captured.err.count("\n") == 1
    assert said in captured.err


def test_an_interrupt_is_no_traceback(capsys, monkeypatch):
    def interrupt():
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "build_parser", interrupt)
    assert main([]) == 130
    assert capsys.readouterr().err == "fbk-xattn: interrupted\n"


def test_a_process_exits_with_the_code_and_a_closed_pipe_is_quiet():
    command = f"{sys.executable} -m fbk_xattn.cli.main"
    wrong = subprocess.run(f"{command} plot", shell=True, cwd=ROOT, capture_output=True, text=True)
    assert (wrong.returncode, wrong.stdout) == (2, "")
    code = (
        "import sys; from fbk_xattn.cli import main as cli; from argparse import Namespace; "
        "run = lambda args: print('x' * 10**6); "
        "cli.build_parser = lambda: Namespace(parse_args=lambda argv: Namespace(run=run)); "
        "code = cli.main([]); print(code, file=sys.stderr)"
    )
    piped = subprocess.run(
        f'{sys.executable} -c "{code}" | head -c 1',
        shell=True,
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert (piped.stdout, piped.stderr) == ("x", "1\n")


@pytest.mark.parametrize(
    ("redirection", "code", "said"),
    [
        (">/dev/full", 1, "error: standard output: cannot be written (No space left on device)"),
        (">&-", 0, ""),
        (">&- 2>&-", 0, ""),
    ],
)
def test_output_that_cannot_be_written_is_no_traceback(rng, tmp_path, redirection, code, said):
    store = make_store(tmp_path / "store", [make_attribution(rng)])
    command = f"{sys.executable} -m fbk_xattn.cli.main correlate {store.path} {redirection}"
    done = subprocess.run(command, shell=True, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == code
    assert said in done.stderr
    assert done.stderr.count("\n") == bool(said)


def test_errors_of_files_are_not_taken_for_those_of_the_output(monkeypatch):
    def run(_):
        raise PermissionError(13, "Permission denied", "some/file")

    monkeypatch.setattr(
        cli, "build_parser", lambda: Namespace(parse_args=lambda _: Namespace(run=run))
    )
    with pytest.raises(PermissionError):
        main([])


def test_help_and_correlate_import_nothing_heavy(tmp_path):
    code = (
        "import contextlib, io, sys\n"
        "sys.path.insert(0, 'tests')\n"
        "import numpy\n"
        "from pathlib import Path\n"
        "from synthetic import make_attribution, make_store\n"
        "from fbk_xattn.cli.main import main\n"
        "make_store(Path(sys.argv[1]), [make_attribution(numpy.random.default_rng(0))])\n"
        "with contextlib.redirect_stdout(io.StringIO()) as out:\n"
        "    with contextlib.suppress(SystemExit):\n"
        "        main(['--help'])\n"
        "    code = main(['correlate', sys.argv[1]])\n"
        f"print(code, len(out.getvalue()) > 1000, {HEAVY})\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "store")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout == "0 True set()\n"
