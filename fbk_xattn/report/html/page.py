"""The page: everything of a store in one HTML file that needs no network."""

from __future__ import annotations

import base64
import hashlib
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

import fbk_xattn
from fbk_xattn.analysis.collecting import Progress
from fbk_xattn.analysis.comparison import parameter
from fbk_xattn.analysis.maps import (
    CROSS_ATTENTION,
    NAMES,
    STORED_CROSS_ATTENTION,
    TARGETS,
    flags_for,
    stored_cross_attention,
)
from fbk_xattn.errors import InputError
from fbk_xattn.report.html.audio import AudioSource
from fbk_xattn.report.html.budget import choose_levels
from fbk_xattn.report.html.packing import encode
from fbk_xattn.report.html.rows import ROWS, TOKENS
from fbk_xattn.report.html.summary import summarise
from fbk_xattn.report.html.utterance import (
    CORRELATION_STEPS,
    SPECTROGRAM_LEVELS,
    UNDEFINED,
    Measured,
    measure,
    with_maps,
)
from fbk_xattn.store import AttributionStore, CurveStore

HERE = Path(__file__).parent
TEMPLATE = "template.html.j2"
STYLE = "report.css"
# In the order in which they use one another.
SCRIPTS = (
    "codec.js",
    "maps.js",
    "draw.js",
    "table.js",
    "tokens.js",
    "view.js",
    "overview.js",
    "report.js",
)
SALIENCY_UNITS = {"kl": "KL divergence, nats", "probability": "probability lost"}  # by --scorer
COLOURS = "magma"  # perceptually uniform, as in the figures


@dataclass(frozen=True)
class Page:
    """A page and what is worth saying about it.

    Attributes:
        html: The whole file.
        ids: The utterances in it.
        n_left_out: How many of the store are not.
        levels: How many values a map can take between its least and its greatest one.
        without_audio: Utterances that were to have audio and are known to none of the manifests.
    """

    html: str
    ids: tuple[str, ...]
    n_left_out: int
    levels: int
    without_audio: tuple[str, ...]


def build_page(
    store: AttributionStore,
    ids: Sequence[str],
    *,
    aggregation: str = "2d-max",
    rows: str = TOKENS,
    deletions: Sequence[CurveStore] = (),
    audio: AudioSource | None = None,
    progress: Progress | None = None,
) -> Page:
    """Make the page.

    Tables and curves at its top are of the whole store, as the other commands print them.

    Args:
        store: To read, one utterance at a time.
        ids: Utterances that can be looked at, in the order of their table.
        aggregation: How input saliency is brought to encoder steps.
        rows: What is shown at first, a name in :data:`~fbk_xattn.report.html.rows.ROWS`.
        deletions: Folders of deletion or insertion.
        audio: Of the utterances; ``None`` for a page without.
        progress: Called with the number of files read and of all, more than once from 0.

    Raises:
        InputError: An unknown id or name, an empty store, a damaged file, NaN or infinity in it, or
            audio that cannot be read.
    """
    if rows not in ROWS:
        raise InputError(f"rows {rows!r}: expected one of {', '.join(ROWS)}")
    there = store.ids()
    if not there:
        raise InputError(f"{store.path}: no utterance in this store, expected at least one")
    summary = summarise(store, aggregation, deletions, progress)
    measured = []
    for number, utterance_id in enumerate(ids, start=1):
        attribution = store.read(utterance_id)
        n_frames = len(attribution.fbank)
        sound = None if audio is None else audio.embedded(utterance_id, n_frames)
        measured.append(measure(attribution, aggregation, sound))
        if progress:
            progress(number, len(ids))
    levels = choose_levels([each.cost for each in measured])
    payloads = [
        as_script(with_maps(each.payload, store.read(utterance_id), levels))
        for utterance_id, each in zip(ids, measured, strict=True)
    ]
    script = _scripts()
    names = {**NAMES, CROSS_ATTENTION: STORED_CROSS_ATTENTION[stored_cross_attention(store)]}
    html = (
        _environment()
        .get_template(TEMPLATE)
        .render(
            name=store.path.resolve().name,
            version=fbk_xattn.__version__,
            style=Markup((HERE / STYLE).read_text(encoding="utf-8")),  # noqa: S704  # our own file
            script=Markup(script),  # noqa: S704  # our own files
            script_hash=_hash(script),
            settings=as_script(
                _settings(measured, names, rows, levels, with_audio=audio is not None)
            ),
            payloads=payloads,
            summary=summary,
            utterances=[each.overview for each in measured],
            n_utterances=len(there),
            n_left_out=len(there) - len(ids),
            targets={target: NAMES[target] for target in TARGETS},
            cross_attention=names[CROSS_ATTENTION],
            rows=rows,
            aggregation=aggregation,
            saliency_unit=SALIENCY_UNITS.get(str(parameter(store, "--scorer")), ""),
            levels=levels,
            spectrogram_levels=SPECTROGRAM_LEVELS,
            size=_size_of_model(measured),
            parameters=_texts(store.meta["parameters"]),
            command=shlex.join(map(str, store.meta.get("provenance", {}).get("command", []))),
            versions=_texts(store.meta.get("provenance", {}).get("versions", {})),
            deletions=[str(folder.path) for folder in deletions],
        )
    )
    without = [each.overview.id for each in measured if each.payload["audio"] is None]
    return Page(
        html=html,
        ids=tuple(ids),
        n_left_out=len(there) - len(ids),
        levels=levels,
        without_audio=tuple(without) if audio is not None else (),
    )


def as_script(value: Any) -> Markup:
    """Return JSON that may stand between script tags: no sign of HTML is in it as such."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return Markup(text)  # noqa: S704  # what HTML would read is escaped


def _settings(
    measured: Sequence[Measured],
    names: Mapping[str, str],
    rows: str,
    levels: int,
    *,
    with_audio: bool,
) -> dict[str, Any]:
    """Return what the script needs to know beside the utterances; ``names`` are of the maps."""
    from matplotlib import colormaps

    colours = (colormaps[COLOURS](np.arange(256))[:, :3] * 255).round().astype(np.uint8)
    return {
        "ids": [each.overview.id for each in measured],
        "rows": rows,
        "levels": levels,
        "colours": encode(colours.tobytes()),
        "correlationSteps": CORRELATION_STEPS,
        "undefined": UNDEFINED,
        "withAudio": with_audio,
        "names": names,
        "absent": {part: f"not saved ({flags_for([part])} saves it)" for part in NAMES},
    }


def _size_of_model(measured: Sequence[Measured]) -> tuple[int, int]:
    """Return the largest number of layers and of heads, for the selectors."""
    sizes = [each.size_of_model for each in measured]
    return max((size[0] for size in sizes), default=0), max((size[1] for size in sizes), default=0)


def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _scripts() -> str:
    parts = [(HERE / name).read_text(encoding="utf-8") for name in SCRIPTS]
    return '"use strict";\n' + "\n".join(parts)


def _hash(script: str) -> str:
    """Return what a content security policy calls a script."""
    digest = hashlib.sha256(script.encode("utf-8")).digest()
    return f"sha256-{base64.b64encode(digest).decode('ascii')}"


def _texts(values: Mapping[str, Any]) -> dict[str, str]:
    """Return parameters as people read them."""

    def text(value: Any) -> str:
        if isinstance(value, list):
            return " ".join(map(str, value))
        return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)

    return {name: text(value) for name, value in sorted(values.items())}
