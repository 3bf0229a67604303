"""Commands that stand in for SLURM's: tasks are local processes with SLURM's variables."""

from __future__ import annotations

import os
import stat
import subprocess
import sys

# Runs the job, again after each requeue. When FAKE_STORED utterances are stored in FAKE_OUT, the
# time limit is near: the first run of the job gets the signal of its #SBATCH line.
SBATCH = """
import os, re, signal, subprocess, sys, time
from pathlib import Path
script, *arguments = sys.argv[1:]
text = Path(script).read_text()
name = signal.Signals["SIG" + re.search(r"^#SBATCH --signal=B:(\\w+)@\\d+$", text, re.M)[1]]
name = signal.Signals[os.environ.get("FAKE_SIGNAL", name.name)]
spool = Path("slurm_script")  # SLURM runs a copy of the script
spool.write_text(text)
requeued = Path("requeued")
stored = int(os.environ.get("FAKE_STORED", "-1"))
for restart in range(10):
    job = subprocess.Popen(
        ["bash", str(spool), *arguments],
        env={**os.environ, "SLURM_JOB_ID": "77", "SLURM_JOB_NAME": "job",
             "SLURM_NTASKS": os.environ["FAKE_TASKS"], "SLURM_JOB_NUM_NODES": "1",
             "SLURM_CPUS_PER_TASK": "1", "SLURM_RESTART_COUNT": str(restart)},
    )
    while job.poll() is None and restart == 0 and stored >= 0:
        ready = len(list(Path(os.environ["FAKE_OUT"]).glob("[!.]*.npz"))) >= stored
        if ready and Path("started").exists():
            job.send_signal(name)
            break
        time.sleep(0.01)
    code = job.wait()
    if not requeued.exists():
        sys.exit(code)
    requeued.unlink()
    print("sbatch: job runs again", flush=True)
sys.exit("sbatch: requeued too often")
"""

SRUN = """
import os, signal, subprocess, sys
from pathlib import Path
options = {}
arguments = sys.argv[1:]
while arguments[0].startswith("--"):
    key, _, value = arguments.pop(0).partition("=")
    options[key] = value
assert options["--kill-on-bad-exit"] == "0" and options["--open-mode"] == "append"
tasks = []
def forward(number, _):
    for task in tasks:  # the processes that a task has started get it too
        try:
            os.killpg(task.pid, number)
        except ProcessLookupError:
            pass
signal.signal(signal.SIGUSR1, forward)
signal.signal(signal.SIGTERM, forward)
for rank in range(int(os.environ["SLURM_NTASKS"])):
    log = options["--output"].replace("%x", "job").replace("%j", "77").replace("%t", str(rank))
    with open(log, "a") as output:
        tasks.append(subprocess.Popen(
            arguments, stdout=output, stderr=output, start_new_session=True,
            env={**os.environ, "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank),
                 "SLURM_NODEID": "0", "SLURM_STEP_ID": "0",
                 "SLURM_STEP_NUM_TASKS": os.environ["SLURM_NTASKS"]},
        ))
Path("started").touch()
codes = [task.wait() for task in tasks]
sys.exit(max(code if code >= 0 else 128 - code for code in codes))
"""

SCONTROL = """
import os, sys
from pathlib import Path
if sys.argv[1:] == ["show", "job", "77"]:
    print("JobId=77 JobName=job\\n   JobState=" + os.environ.get("FAKE_STATE", "RUNNING"))
else:
    assert sys.argv[1:] == ["requeue", "77"], sys.argv
    Path("requeued").touch()
"""

GENERATE = """
import runpy, sys
runpy.run_module("fairseq_cli.generate", run_name="__main__")
"""


class FakeSlurm:
    """SLURM's commands in a folder of their own, which is also where jobs run."""

    def __init__(self, folder):
        """Write the commands."""
        self.folder = folder
        self._bin = folder / "bin"
        self._bin.mkdir(parents=True)
        commands = {"sbatch": SBATCH, "srun": SRUN, "scontrol": SCONTROL}
        for name, code in {**commands, "fairseq-generate": GENERATE}.items():
            self.command(name, code)

    def command(self, name, code):
        """Put a command written in Python on the PATH."""
        file = self._bin / name
        file.write_text(f"#!{sys.executable}\n{code}")
        file.chmod(file.stat().st_mode | stat.S_IXUSR)

    def sbatch(self, *arguments, **environment):
        """Run a job to its end, requeues included."""
        path = f"{self._bin}{os.pathsep}{os.environ['PATH']}"
        return subprocess.run(
            ["sbatch", *map(str, arguments)],
            cwd=self.folder,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PATH": path, **environment},
            executable=self._bin / "sbatch",
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=300,
        )

    def log(self, task):
        """Return what a task printed in all runs of the job."""
        file = self.folder / f"job-77-{task}.log"
        return file.read_text() if file.exists() else "no log"
