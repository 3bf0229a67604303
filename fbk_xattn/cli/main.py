"""Entry point of ``fbk-xattn``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn, Protocol

import fbk_xattn
from fbk_xattn.cli import (
    agreement,
    average_checkpoints,
    correlate,
    evaluate,
    export,
    models,
    plot,
    prepare,
    prompts,
    quality,
    report,
    size,
    tables,
)
from fbk_xattn.errors import InputError

PROGRAM = "fbk-xattn"


class Command(Protocol):
    """A module of this folder that is a subcommand.

    Importing it must stay cheap, for every run of ``fbk-xattn`` imports all of them: what is heavy
    is imported inside its ``run``.
    """

    @property
    def __name__(self) -> str:
        """Name of the module."""

    def add_parser(self, subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
        """Add the subcommand; its parser must set the default ``run``."""

    def run(self, args: argparse.Namespace) -> int:
        """Carry it out and return the exit code."""


COMMANDS: tuple[Command, ...] = (
    prompts,
    prepare,
    average_checkpoints,
    models,
    correlate,
    tables,
    evaluate,
    size,
    quality,
    agreement,
    plot,
    report,
    export,
)


class OneLineParser(argparse.ArgumentParser):
    """A parser whose complaints are :class:`InputError`, to be shown like all others."""

    def error(self, message: str) -> NoReturn:
        """Raise ``message``.

        Raises:
            InputError: Always.
        """
        raise InputError(f"{message}; '{self.prog} --help' lists what is expected")


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    parser: argparse.ArgumentParser = OneLineParser(
        prog=PROGRAM,
        description="Analyse what a speech-to-text model listened to for each token, and how much "
        "of it its cross-attention tells.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "-V", "--version", action="version", version=f"{PROGRAM} {fbk_xattn.__version__}"
    )
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.add_parser(subparsers)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: Arguments without the name of the program; those of the process by default.

    Returns:
        The exit code: 0, 1 when some of the work could not be done or standard output not be
        written, 2 for wrong input (one line on standard error says what), 130 after an interrupt.
    """
    _open_closed_streams()
    try:
        args = build_parser().parse_args(argv)
        code: int = args.run(args)
        sys.stdout.flush()
    except InputError as error:
        print(f"{PROGRAM}: error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # The reader (`| head`) has what it wanted; without this the interpreter complains at exit.
        _discard_output()
        return 1
    except OSError as error:
        if error.filename is not None:  # of a file, not of standard output
            raise
        print(
            f"{PROGRAM}: error: standard output: cannot be written ({error.strerror or error}), "
            "expected a writable place",
            file=sys.stderr,
        )
        _discard_output()
        return 1
    except KeyboardInterrupt:
        print(f"{PROGRAM}: interrupted", file=sys.stderr)
        return 130
    return code


def _open_closed_streams() -> None:
    """Let nobody read what is written to standard streams that the shell closed (``>&-``)."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115


def _discard_output() -> None:
    """Let nobody read what is still to be written to standard output, at the end for example."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
