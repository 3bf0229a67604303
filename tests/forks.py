"""``fairseq-generate`` in processes that can be killed, without importing everything for each."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parent

# Forks a process for each line of its input, prints its id, and when it has ended its exit code.
SERVER = f"""
import json, os, sys
sys.path[:0] = [{str(TESTS.parent)!r}, {str(TESTS)!r}]
import torch
from fairseq_cli import generate
from fairseq_runs import generate_config
torch.set_num_threads(1)
configs = {{}}
for line in sys.stdin:
    argv, environment, log = json.loads(line)
    if str(argv) not in configs:
        configs[str(argv)] = generate_config(argv)
    child = os.fork()
    if child == 0:
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(output, 1), os.dup2(output, 2), os.close(0)
        os.environ.update(environment)
        generate.main(configs[str(argv)])  # an exception ends this process with its message
        break
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class ForkServer:
    """A process that has imported everything and runs ``fairseq-generate`` in forks of itself."""

    def __init__(self, log):
        """Start it; what a command prints goes to the file ``log``."""
        self.log = log
        self._server = subprocess.Popen(
            [sys.executable, "-c", SERVER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._server.stdin.close()
        self._server.wait(timeout=60)

    def start(self, argv, **environment):
        """Start the command with these arguments and return the id of its process."""
        print(json.dumps([argv, environment, str(self.log)]), file=self._server.stdin, flush=True)
        self._pid = int(self._server.stdout.readline())
        return self._pid

    def runs(self):
        """Return whether the process still runs."""
        return not select.select([self._server.stdout], [], [], 0)[0]

    def send(self, number):
        """Send the process a signal; it may have ended."""
        try:
            os.kill(self._pid, number)
        except ProcessLookupError:
            return

    def wait(self):
        """Return its exit code, negative for a signal."""
        return int(self._server.stdout.readline())

    def run(self, argv, **environment):
        """Run the command to its end; return its exit code and output."""
        self.start(argv, **environment)
        return self.wait(), self.log.read_text()
