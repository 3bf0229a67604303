"""Help for the tasks' flags, which fairseq's ``--help`` leaves out."""

from __future__ import annotations

import atexit
from argparse import ArgumentParser
from collections.abc import Sequence

from fairseq.tasks import TASK_REGISTRY


def show_task_flags_with_help(argv: Sequence[str], tasks: Sequence[str]) -> None:
    """Print a task's flags after fairseq's help, when the command line asks for both.

    fairseq's commands act on ``--help`` before they add the flags of the task, so its help never
    shows them.

    Args:
        argv: Command line without the program.
        tasks: Names of the plugin's tasks.
    """
    if not {"-h", "--help"} & set(argv):
        return
    parser = ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--task")
    name = parser.parse_known_args(argv)[0].task
    if name not in tasks:
        return
    flags = ArgumentParser(add_help=False, usage=f"flags of --task {name}")
    TASK_REGISTRY[name].add_args(flags)
    atexit.register(lambda: print(f"\n{flags.format_help()}"))
