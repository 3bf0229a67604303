"""The examples in the docstrings of the package are run."""

import doctest
import importlib
import pkgutil

import pytest

import fbk_xattn.explain

# The kernels need Triton, which torch's builds for CPUs come without.
KERNELS = {"cuda"}
FOUND = {module.name for module in pkgutil.iter_modules(fbk_xattn.explain.__path__)}
MODULES = sorted(FOUND - KERNELS)


@pytest.mark.parametrize("name", MODULES)
def test_examples_are_true(name):
    module = importlib.import_module(f"fbk_xattn.explain.{name}")
    assert doctest.testmod(module).failed == 0


def test_most_modules_have_examples():
    finder = doctest.DocTestFinder(exclude_empty=True)
    modules = (importlib.import_module(f"fbk_xattn.explain.{name}") for name in MODULES)
    tested = [m for m in modules if any(test.examples for test in finder.find(m))]
    assert len(tested) >= 6
