"""Checkpoints made up for tests."""

from __future__ import annotations

import os
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from fbk_xattn.errors import InputError


def weights(seed, n=3):
    generator = torch.Generator().manual_seed(seed)
    return {
        "encoder.weight": torch.randn(n, 4, generator=generator),
        "encoder.half": torch.randn(5, generator=generator).half(),
        "encoder.num_batches_tracked": torch.tensor(10 * seed),
    }


def save_checkpoint(folder, name="a.pt", legacy=False, **entries):
    """Save a checkpoint in a folder and return its path."""
    entries.setdefault("model", weights(1))
    torch.save(entries, folder / name, _use_new_zipfile_serialization=not legacy)
    return folder / name


@contextmanager
def new_folder():
    """A folder for each of the examples of hypothesis, which share what pytest's fixtures make."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def refused(call, *args):
    """Return the one line that refuses a call."""
    with pytest.raises(InputError) as caught:
        call(*args)
    assert "\n" not in str(caught.value)
    return str(caught.value)


class Hostile:
    """Runs a command when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.system, (f"touch {self.path}",))
