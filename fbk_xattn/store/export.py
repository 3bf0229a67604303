"""Input saliency of a store as one HDF5 file in the layout that published scripts read.

A group for each utterance, named after its row of the manifest (``"0"``, ``"1"``, ...), holds, for
``S`` hypothesis tokens with language tag and eos, ``T`` frames and ``F`` mel bins,

- ``fbank_heatmap``, float32 ``(S, T, F)``: the saliency map, row i of the i-th hypothesis token;
- ``tgt_embed_heatmap``, float32 ``(S, S, 1)``: saliency of the previous tokens, row i of the i-th
  hypothesis token, column j of the j-th string of ``tgt_text``; 0 where j > i, and 0 altogether, as
  in a published run, if none of them was occluded;
- ``tgt_text``, ``S`` strings: what the decoder is given, eos and then all tokens but the last, so
  that row i of the maps is of string i + 1;
- ``src_text``, a string: the transcript with eos directly after it;
- ``n_masks``, int64: the number of occlusion masks;

and, besides the published layout, the utterance id as the attribute ``id`` of the group.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import numpy as np

from fbk_xattn.errors import InputError
from fbk_xattn.files import whole_file
from fbk_xattn.store.attribution import Attribution, FloatArray
from fbk_xattn.store.directory import META, AttributionStore

if TYPE_CHECKING:
    from typing_extensions import Buffer  # in collections.abc from Python 3.12 on

N_MASKS = "--num-masks"
# What the published files are written with; the size of the chunks is h5py's choice there too.
COMPRESSION = {"compression": "gzip", "compression_opts": 9, "shuffle": True}


def export_h5(
    store: AttributionStore,
    rows: Mapping[str, int],
    output: Path,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write the input saliency of utterances as HDF5, all of them or nothing.

    One utterance is in memory at a time.

    Args:
        store: To read; its utterances have input saliency.
        rows: Ids of the utterances to write, in that order, each with the number that names its
            group, unique.
        output: File to write.
        progress: Called after each utterance with the number done and the number of all.

    Raises:
        InputError: An utterance is not in the store, is damaged or has no input saliency, the store
            does not say how many masks there were, or ``output`` cannot be written.
    """
    with whole_file(output) as temporary, _Disk(temporary, "w+") as disk:
        try:
            _write_all(disk, store, rows, progress)
        finally:  # also instead of what HDF5 says when it reads back what was not written
            disk.check()


def _write_all(
    disk: _Disk,
    store: AttributionStore,
    rows: Mapping[str, int],
    progress: Callable[[int, int], None] | None,
) -> None:
    n_masks = _n_masks(store)
    with h5py.File(disk, "w") as file:
        for done, (utterance_id, row) in enumerate(rows.items(), start=1):
            _write_utterance(file.create_group(str(row)), store.read(utterance_id), n_masks)
            file.flush()
            disk.check()
            if progress is not None:
                progress(done, len(rows))


def _n_masks(store: AttributionStore) -> int:
    masks = store.meta["parameters"].get(N_MASKS)
    if not isinstance(masks, int):
        raise InputError(
            f"{store.path / META}: {N_MASKS} is {masks!r}, expected the whole number of a run of "
            "fairseq-generate with --explain input"
        )
    return masks


def _write_utterance(group: h5py.Group, attribution: Attribution, n_masks: int) -> None:
    saliency = _dense(attribution)
    *before, eos = attribution.tokens
    if any("\0" in text for text in (attribution.id, attribution.src_text, *attribution.tokens)):
        raise InputError(
            f"utterance {attribution.id!r}: a NUL character in its id, src_text or tokens, which "
            "strings of HDF5 cannot have; expected texts without"
        )
    group.attrs["id"] = attribution.id
    group.create_dataset("fbank_heatmap", data=saliency, **COMPRESSION)
    group.create_dataset(
        "tgt_embed_heatmap", data=_token_saliency(attribution)[:, :, np.newaxis], **COMPRESSION
    )
    group.create_dataset("tgt_text", data=[eos, *before], dtype=h5py.string_dtype())
    _write_text(group, "src_text", attribution.src_text + eos)
    group.create_dataset("n_masks", data=np.int64(n_masks))


def _dense(attribution: Attribution) -> FloatArray:
    """Return the saliency map ``(S, T, F)``.

    Raises:
        InputError: There is none, or its shape does not fit the tokens and frames.
    """
    if attribution.input_saliency is None:
        raise InputError(
            f"utterance {attribution.id!r}: saved without input saliency, expected a run of "
            "fairseq-generate with --explain input"
        )
    saliency = attribution.input_saliency.dense()
    expected = (len(attribution.tokens), *attribution.fbank.shape)
    if saliency.shape != expected:
        raise InputError(
            f"utterance {attribution.id!r}: input saliency of the shape {saliency.shape}, expected "
            f"{expected} as its tokens and frames say"
        )
    return saliency


def _token_saliency(attribution: Attribution) -> FloatArray:
    """Return the saliency of the previous tokens ``(S, S)``, 0 if none of them was occluded.

    Raises:
        InputError: Its shape does not fit the tokens.
    """
    S = len(attribution.tokens)
    if attribution.token_saliency is None:
        return np.zeros((S, S), dtype=np.float32)
    if attribution.token_saliency.shape != (S, S):
        raise InputError(
            f"utterance {attribution.id!r}: previous-token saliency of the shape "
            f"{attribution.token_saliency.shape}, expected {(S, S)} as its tokens say"
        )
    return attribution.token_saliency


def _write_text(group: h5py.Group, name: str, text: str) -> None:
    """Write one string: ASCII as in the published files, other texts as the UTF-8 they are.

    Both are read as the same bytes, but ``asstr()`` would fail for UTF-8 that claims to be ASCII.
    """
    encoding = "ascii" if text.isascii() else "utf-8"
    group.create_dataset(name, data=text.encode(), dtype=h5py.string_dtype(encoding))


class _Disk(io.FileIO):
    """The file that HDF5 writes to, which keeps a failed write to itself until it is asked.

    HDF5 goes on after an error of its file (disk full, for example) with paragraphs on standard
    error, and the process may crash when the HDF5 file is closed.
    """

    error: OSError | None = None

    def write(self, data: Buffer, /) -> int:
        """Write all of ``data``, unless a write failed before."""
        rest = memoryview(data).cast("B")
        try:
            while rest and self.error is None:
                rest = rest[super().write(rest) :]
        except OSError as error:
            self.error = error
        return memoryview(data).nbytes

    def truncate(self, size: int | None = None, /) -> int:
        """Make the file ``size`` bytes long, unless a write failed before."""
        try:
            return super().truncate(size) if self.error is None else 0
        except OSError as error:
            self.error = error
            return 0

    def check(self) -> None:
        """Raise the error of the first write that failed.

        Raises:
            OSError: A write failed.
        """
        if self.error is not None:
            raise self.error
