import base64
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from fbk_xattn.report.html.budget import LEVELS, Cost, choose_levels, costs_of
from fbk_xattn.report.html.packing import MOST_LEVELS, TYPES, estimated_bytes, pack, quantise

FLOATS = st.floats(-1e4, 1e4, width=32)
ROWS = arrays.arrays(
    np.float32, arrays.array_shapes(min_dims=2, max_dims=3, max_side=8), elements=FLOATS
)


def unpacked(packed):
    """Read an array as codec.js does."""
    dtype = next(dtype for dtype, name in TYPES.items() if name == packed["type"])
    planes = np.frombuffer(zlib.decompress(base64.b64decode(packed["data"])), np.uint8)
    values = np.ascontiguousarray(planes.reshape(dtype.itemsize, -1).T).view(dtype)
    values = values.reshape(packed["shape"])
    return np.cumsum(values, axis=0, dtype=dtype) if packed["delta"] else values


@given(ROWS, st.integers(2, MOST_LEVELS))
def test_values_come_back_within_half_a_step(values, levels):
    quantised = quantise(values, levels)
    assert quantised.codes.max(initial=0) < levels
    error = np.abs(quantised.values() - values)
    # Scales are in single precision, as the page has them.
    rounding = 1e-6 * np.abs(values).max(initial=0) + np.finfo(np.float32).smallest_normal
    assert (error <= quantised.step[..., None] * 0.5001 + rounding).all()


def test_a_constant_row_stays_what_it_is():
    quantised = quantise(np.array([[0.25, 0.25], [1.0, 2.0]]), 16)
    assert quantised.step[0] == 0
    np.testing.assert_allclose(quantised.values(), [[0.25, 0.25], [1.0, 2.0]])


@pytest.mark.parametrize("levels", [1, 257])
def test_levels_that_no_byte_has_are_refused(levels):
    with pytest.raises(ValueError, match="expected 2 to 256"):
        quantise(np.zeros((1, 1)), levels)


@given(st.sampled_from(list(TYPES)).flatmap(lambda t: arrays.arrays(t, (3, 4, 2))), st.booleans())
def test_packed_arrays_come_back(values, delta):
    if delta and values.dtype.kind == "f":
        return
    np.testing.assert_array_equal(unpacked(pack(values, delta=delta)), values)


@pytest.mark.parametrize("shape", [(0,), (0, 3), (2, 0)])
def test_empty_arrays_come_back(shape):
    assert unpacked(pack(quantise(np.zeros((2, 0))).codes)).shape == (2, 0)
    assert unpacked(pack(np.zeros(shape, np.int16))).shape == shape


def test_size_of_codes_is_known_before_they_are_packed(rng):
    codes = np.rint(np.clip(rng.normal(60, 15, (40, 4000)), 0, 255)).astype(np.uint8)
    assert estimated_bytes(codes) == pytest.approx(len(pack(codes)["data"]), rel=0.02)


def test_fewer_levels_take_fewer_bytes(rng):
    costs = costs_of(rng.random((20, 1000)))
    assert (np.diff(costs) < 0).all()
    expected = [len(pack(quantise(rng.random((20, 1000)), n).codes)["data"]) for n in LEVELS]
    np.testing.assert_allclose(costs, expected, rtol=0.03)


def test_the_finest_levels_that_fit_are_chosen():
    by_levels = tuple(1000.0 * levels for levels in LEVELS)
    assert choose_levels([Cost(0.0, by_levels)] * 50) == 256
    assert choose_levels([Cost(400_000.0, by_levels)] * 50) == 64
    assert choose_levels([Cost(9e6, by_levels)] * 50) == LEVELS[-1]
    assert choose_levels([]) == 256
