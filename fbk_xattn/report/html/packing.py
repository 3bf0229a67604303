"""Arrays as text in a page: quantised, compressed, base64. ``codec.js`` reads them."""

from __future__ import annotations

import base64
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

MOST_LEVELS = 256  # of a byte
# What a packed array can be; the names are those of JavaScript's typed arrays.
TYPES = {
    np.dtype(np.uint8): "Uint8Array",
    np.dtype(np.uint16): "Uint16Array",
    np.dtype(np.uint32): "Uint32Array",
    np.dtype(np.int16): "Int16Array",
    np.dtype(np.float32): "Float32Array",
}

Packed = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Quantised:
    """Maps as whole numbers, each row with a scale of its own.

    A value is ``low + step * code``, within half a step of what was quantised.

    Attributes:
        codes: ``(..., K)``, from 0.
        low: ``(...)``, least value of each row.
        step: ``(...)``, difference of neighbouring codes; 0 in a constant row.
    """

    codes: NDArray[np.uint8]
    low: NDArray[np.float32]
    step: NDArray[np.float32]

    def values(self) -> NDArray[np.float64]:
        """Return the values again, ``(..., K)``."""
        low, step = (scale.astype(np.float64)[..., np.newaxis] for scale in (self.low, self.step))
        return low + step * self.codes

    def packed(self) -> dict[str, Packed]:
        """Return codes and scales for the page."""
        return {"codes": pack(self.codes), "low": pack(self.low), "step": pack(self.step)}


def quantise(values: NDArray[np.floating[Any]], levels: int = MOST_LEVELS) -> Quantised:
    """Quantise rows evenly between their least and greatest value.

    Args:
        values: ``(..., K)``, finite.
        levels: How many codes there are, 2 to 256.

    Example:
        >>> quantise(np.array([[0.0, 0.2, 1.0]]), levels=11).codes
        array([[ 0,  2, 10]], dtype=uint8)
    """
    if not 2 <= levels <= MOST_LEVELS:
        raise ValueError(f"{levels} levels, expected 2 to {MOST_LEVELS}")
    values = np.asarray(values, dtype=np.float64)
    if values.shape[-1] == 0:
        empty = np.zeros(values.shape[:-1], np.float32)
        return Quantised(values.astype(np.uint8), empty, empty)
    # Scales as the page will have them, so that rounding them adds nothing.
    low = values.min(axis=-1).astype(np.float32)
    step = ((values.max(axis=-1) - low) / (levels - 1)).astype(np.float32)
    whole = np.where(step > 0, step, 1).astype(np.float64)[..., np.newaxis]
    codes = np.rint((values - low[..., np.newaxis]) / whole)
    return Quantised(np.clip(codes, 0, levels - 1).astype(np.uint8), low, step)


def pack(values: NDArray[Any], *, delta: bool = False) -> Packed:
    """Return an array as what JSON can hold.

    Its bytes, the first of all elements before the second of any, are compressed with zlib and
    written in base64.

    Args:
        values: Of a type in :data:`TYPES`.
        delta: Whether to store differences along the first axis (modulo the type), which compress
            better where neighbours are alike.
    """
    kind = TYPES[values.dtype]
    stored = np.ascontiguousarray(values)
    if delta:
        stored = stored.copy()
        stored[1:] -= values[:-1]
    flat = stored.reshape(-1).astype(stored.dtype.newbyteorder("<")).view(np.uint8)
    planes = np.ascontiguousarray(flat.reshape(-1, stored.itemsize).T)
    return {
        "type": kind,
        "shape": list(values.shape),
        "delta": delta,
        "data": encode(_compressed(planes.tobytes())),
    }


def _compressed(data: bytes) -> bytes:
    """Compress with zlib, looking for runs of a byte but for no other repetitions.

    Codes of maps are noise in its eyes, and the search for what they do not have takes seconds an
    utterance and makes them larger.
    """
    compressor = zlib.compressobj(6, zlib.DEFLATED, zlib.MAX_WBITS, 9, zlib.Z_RLE)
    return compressor.compress(data) + compressor.flush()


def encode(data: bytes) -> str:
    """Return base64."""
    return base64.b64encode(data).decode("ascii")


def estimated_bytes(codes: NDArray[np.uint8]) -> float:
    """Return about how many bytes of a page an array of codes takes once it is packed.

    By its entropy, which compression of single codes reaches, and by base64's 4 for 3.
    """
    counts = np.bincount(codes.reshape(-1))
    counts = counts[counts > 0]
    if counts.size == 0:
        return 0.0
    bits = float(np.sum(counts * np.log2(counts.sum() / counts)))
    return bits / 8 * 4 / 3
