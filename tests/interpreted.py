"""Runs the Triton kernels without a GPU, in Triton's interpreter, which looks at every address."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import pytest
import torch


def kernels(*names: str) -> list[Any]:
    """Import modules of kernels for the interpreter; skip the tests of a module that cannot."""
    if torch.cuda.is_available():
        pytest.skip("the kernels run on the GPU here", allow_module_level=True)
    pytest.importorskip("triton")
    return [importlib.import_module(name) for name in names]


class AddressError(Exception):
    """A kernel reads or writes what is not its."""


@pytest.fixture
def addresses(monkeypatch):
    """Let kernels read and write nothing but the tensors that they are given."""
    from triton.runtime import interpreter

    allowed: list[tuple[int, int]] = []
    builder, executor = interpreter.InterpreterBuilder, interpreter.GridExecutor
    load, store = builder.create_masked_load, builder.create_masked_store
    prepare = executor._init_args_hst

    def check(pointers, mask):
        wanted = pointers.data[np.broadcast_to(mask.data, pointers.data.shape).astype(bool)]
        wanted = wanted.astype(np.int64)
        inside = np.zeros(wanted.shape, dtype=bool)
        for first, stop in allowed:
            inside |= (wanted >= first) & (wanted < stop)
        if not inside.all():
            raise AddressError(f"{(~inside).sum()} of {inside.size} addresses")

    def checked_load(self, pointers, mask, *rest, **named):
        check(pointers, mask)
        return load(self, pointers, mask, *rest, **named)

    def checked_store(self, pointers, value, mask, *rest, **named):
        check(pointers, mask)
        return store(self, pointers, value, mask, *rest, **named)

    def prepared(self, arguments, named):
        result = prepare(self, arguments, named)
        given = [getattr(x, "base", x) for x in (*result[0], *result[1].values())]
        tensors = [x for x in given if isinstance(x, torch.Tensor)]
        storages = [tensor.untyped_storage() for tensor in tensors]
        allowed[:] = [(s.data_ptr(), s.data_ptr() + s.nbytes()) for s in storages]
        return result

    monkeypatch.setattr(builder, "create_masked_load", checked_load)
    monkeypatch.setattr(builder, "create_masked_store", checked_store)
    monkeypatch.setattr(executor, "_init_args_hst", prepared)
    # It would copy every tensor onto itself, on a CPU.
    monkeypatch.setattr(executor, "_restore_args_dev", lambda *_: None)
