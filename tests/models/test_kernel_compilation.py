"""Every Triton kernel compiles for GPUs of labs, and fits their shared memory."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", minversion="3.4")  # compiled.py is written for its interface
TESTS = Path(__file__).parents[1]
# Bytes of shared memory that a block may have: A40 (the least of its generation), H100 and H200.
SHARED = {"80": 101_376, "90": 232_448}
KERNELS = {
    "_attend_relatively", "_attend_to_shared", "_convolve", "_convolve_back_to_weight",
    "_divergence", "_gate", "_gradient", "_log_probs", "_normalise", "_normalise_back", "_shift",
    "_shift_back", "_sum_columns",
}  # fmt: skip


@pytest.mark.parametrize("capability", SHARED)
def test_kernels_compile_and_fit(capability, tmp_path):
    environment = {name: os.environ[name] for name in os.environ if name != "TRITON_INTERPRET"}
    environment |= {
        "PYTHONPATH": os.pathsep.join(map(str, (TESTS.parent, TESTS))),
        "TRITON_CACHE_DIR": str(tmp_path),
        "CUDA_VISIBLE_DEVICES": "",
    }
    done = subprocess.run(
        [sys.executable, TESTS / "compiled.py", capability],
        capture_output=True, text=True, env=environment, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    rows = [line.split() for line in done.stdout.splitlines() if line.startswith("_")]
    hopper = {"_activated_product"} if capability == "90" else set()
    assert {name for name, _, _ in rows} == KERNELS | hopper
    assert all(int(size) <= SHARED[capability] for _, _, size in rows)
