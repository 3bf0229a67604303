import os
import subprocess
import sys
import types
from pathlib import Path

import pytest

from fbk_xattn.environment import require_fairseq

ROOT = Path(__file__).parents[1]
BLOCKER = """
import sys
class Blocker:
    def find_spec(self, name, *_):
        if name.split(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}")
sys.meta_path.insert(0, Blocker())
"""


def run(code, *blocked, path=None):
    """Run code in a process that cannot import the ``blocked`` packages."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    if path is not None:
        environment["PYTHONPATH"] = str(path)
    return subprocess.run(
        [sys.executable, "-c", BLOCKER.format(blocked=blocked) + code],
        capture_output=True, text=True, check=False, cwd=ROOT, env=environment,
    )  # fmt: skip


def modules(*packages):
    """Return the names of all modules of these packages."""
    files = [f for p in packages for f in (ROOT / "fbk_xattn" / p).rglob("*.py")]
    assert files
    names = {".".join(f.relative_to(ROOT).with_suffix("").parts) for f in files}
    return sorted(name.removesuffix(".__init__") for name in names)


def test_reading_and_analysing_need_neither_fairseq_nor_torch():
    names = ["fbk_xattn", "fbk_xattn.errors", "fbk_xattn.cli.main"]
    names += modules("store", "analysis", "report")
    code = f"import importlib\nfor name in {names}: importlib.import_module(name)\n"
    done = run(code, "fairseq", "torch", "torchaudio")
    assert done.returncode == 0, done.stderr


def test_store_needs_numpy_alone():
    heavy = ("scipy", "matplotlib", "skimage", "sentencepiece", "soundfile", "yaml", "tqdm")
    done = run("import fbk_xattn.store", "fairseq", "torch", *heavy)
    assert done.returncode == 0, done.stderr


def test_importing_the_package_imports_and_registers_nothing():
    done = run(
        "import fbk_xattn\n"
        "print({m.split('.')[0] for m in sys.modules} & {'fairseq', 'torch', 'numpy'})\n"
        "print([m for m in sys.modules if m.startswith('fbk_xattn')])"
    )
    assert done.stdout == "set()\n['fbk_xattn']\n", done.stderr


def test_after_fairseq_the_package_registers_itself():
    done = run(
        "import fairseq, fbk_xattn\n"
        "from fairseq.tasks import TASK_REGISTRY\n"
        "from fairseq.criterions import CRITERION_REGISTRY\n"
        "from fairseq.models import ARCH_MODEL_REGISTRY\n"
        "assert 'speech_to_text_ctc' in TASK_REGISTRY\n"
        "assert {'ctc_multi_loss', 'joint_cross_entropy_ctc'} <= set(CRITERION_REGISTRY)\n"
        "assert {'conformer_joint_ctc_small', 'conformer_large'} <= set(ARCH_MODEL_REGISTRY)\n"
    )
    assert done.returncode == 0, done.stderr


def last_line(done):
    return done.stderr.strip().splitlines()[-1]


def test_missing_fairseq_is_said_with_what_to_install():
    done = run("import fbk_xattn.plugin", "fairseq")
    assert done.returncode == 1
    assert last_line(done) == (
        "ImportError: fbk_xattn needs fairseq 0.12, not found (No module named 'fairseq'); "
        "install it with: pip install -c constraints.txt ve-fairseq==0.12.3"
    )


@pytest.fixture
def other_fairseq(monkeypatch):
    """Put another module in the place of fairseq."""

    def put(**attributes):
        fake = types.ModuleType("fairseq")
        fake.__path__ = []
        for name, value in attributes.items():
            setattr(fake, name, value)
        for name in [n for n in sys.modules if n.split(".")[0] == "fairseq"]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, "fairseq", fake)

    return put


@pytest.mark.parametrize(
    ("attributes", "version"), [({"__version__": "0.10.2"}, "0.10.2"), ({}, "unknown")]
)
def test_another_fairseq_is_said_with_its_version(other_fairseq, attributes, version):
    other_fairseq(**attributes)
    with pytest.raises(ImportError) as caught:
        require_fairseq()
    assert f"needs fairseq 0.12, found {version} (" in str(caught.value)
    assert "ve-fairseq==0.12.3" in str(caught.value)


def test_fairseq_that_breaks_on_this_python_is_said(tmp_path):
    (tmp_path / "fairseq.py").write_text("raise ValueError('mutable default')")
    done = run("import fbk_xattn.plugin", path=tmp_path)
    assert done.returncode == 1
    assert "this fairseq does not import (mutable default); install it with" in last_line(done)


def test_the_installed_fairseq_is_fit():
    require_fairseq()
