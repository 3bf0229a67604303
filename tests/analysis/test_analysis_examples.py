"""The examples in the docstrings of what reads stores are run."""

import doctest
import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import fbk_xattn
import fbk_xattn.analysis
import fbk_xattn.report
import fbk_xattn.store

MODULES = sorted(
    f"{package.__name__}.{module.name}"
    for package in (fbk_xattn.analysis, fbk_xattn.report, fbk_xattn.store)
    for module in pkgutil.iter_modules(package.__path__)
)


@pytest.mark.parametrize("name", MODULES)
def test_examples_are_true(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_what_a_notebook_imports_has_examples():
    finder = doctest.DocTestFinder(exclude_empty=True)
    named = {test.name for name in MODULES for test in finder.find(importlib.import_module(name))}
    for name in ("correlation.correlate", "normalizers.normalize", "aggregation.aggregate"):
        assert f"fbk_xattn.analysis.{name}" in named
    assert "fbk_xattn.store.directory.AttributionStore" in named


def test_a_notebook_needs_neither_torch_nor_fairseq(tmp_path):
    code = (
        "import sys\n"
        "class NotInstalled:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in ('torch', 'torchaudio', 'fairseq'):\n"
        "            raise ImportError(name)\n"
        "sys.meta_path.insert(0, NotInstalled())\n"
        "sys.path.insert(0, 'tests')\n"
        "import numpy\n"
        "from pathlib import Path\n"
        "from synthetic import make_attribution, make_store\n"
        "from fbk_xattn.store import AttributionStore\n"
        "from fbk_xattn.analysis import correlate\n"
        "make_store(Path(sys.argv[1]), [make_attribution(numpy.random.default_rng(0))])\n"
        "with AttributionStore.open(sys.argv[1]) as store:\n"
        "    for how in ('pearson', 'spearman', 'kendall'):\n"
        "        print(correlate(store, 'input', coefficient=how).mean.shape, end='')\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "store")],
        cwd=Path(fbk_xattn.__file__).parents[1],
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout == "(3, 4)" * 3
