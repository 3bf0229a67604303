"""A new store for the tests of this folder."""

import pytest

from fbk_xattn.store import AttributionStore


@pytest.fixture
def store(tmp_path):
    return AttributionStore.create(tmp_path / "store", parameters={"num_masks": 10})
