"""The numbers behind tables, in files that other programs read."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fbk_xattn.analysis.bootstrap import Bootstrap
from fbk_xattn.analysis.table import CorrelationTable
from fbk_xattn.analysis.tokens import TokenTable
from fbk_xattn.files import write_text
from fbk_xattn.report.grid import records_to_csv
from fbk_xattn.report.tables import layer_names

# With the name of the store that each is of.
Named = Sequence[tuple[str, CorrelationTable | TokenTable]]


def save_numbers(output: Path, tables: Named, bootstrap: Bootstrap) -> None:
    """Write the numbers behind tables, in full precision.

    ``.csv`` has one row a value: of an utterance with its languages, layer and head, or of a token
    and layer. ``.json`` has ``per_utterance``, these values by utterance, layer and head, with
    ``languages`` (spoken and of the hypothesis, of each utterance), means, bootstrap intervals and
    counts; or ``per_token``, by layer and token, with what CSV says of each token and no means.
    What is undefined is null.

    Args:
        output: File to write.
        tables: Tables with the names of their stores.
        bootstrap: For the intervals.

    Raises:
        InputError: The file cannot be written.
    """
    if output.suffix == ".csv":
        text = records_to_csv([row for name, table in tables for row in _rows(name, table)])
    else:
        content = {
            "bootstrap": {
                "resamples": bootstrap.n_resamples,
                "level": bootstrap.level,
                "seed": bootstrap.seed,
            },
            "tables": [{"store": name, **_whole(table, bootstrap)} for name, table in tables],
        }
        text = to_json(content)
    write_text(output, text)


def to_json(content: object, indent: int | None = None) -> str:
    """Return numbers and texts as JSON, null for what is undefined (NaN, which JSON lacks)."""
    return (
        json.dumps(_without_nan(content), indent=indent, ensure_ascii=False, allow_nan=False) + "\n"
    )


def _setting(table: CorrelationTable | TokenTable) -> dict[str, object]:
    setting = table.setting
    return {
        "target": setting.target,
        "aggregation": setting.aggregation,
        "normalize": setting.normalize,
        "coefficient": setting.coefficient,
        "cross_attention": table.cross_attention,
    }


def _rows(name: str, table: CorrelationTable | TokenTable) -> Iterator[Mapping[str, object]]:
    start = {"store": name, **_setting(table)}
    if isinstance(table, TokenTable):
        tokens = zip(
            table.utterance.tolist(),
            table.tokens,
            table.position.tolist(),
            table.length.tolist(),
            table.starts_word.tolist(),
            strict=True,
        )
        for column, (utterance, token, position, length, starts_word) in enumerate(tokens):
            for layer, values in zip(layer_names(table.n_layers), table.correlation, strict=True):
                yield {
                    **start,
                    "utterance": table.ids[utterance],
                    "token": token,
                    "position": position,
                    "length": length,
                    "starts_word": int(starts_word),
                    "layer": layer,
                    "correlation": float(values[column]),
                }
        return
    languages = table.languages or [("", "")] * len(table.ids)
    details = zip(table.ids, languages, table.per_utterance, strict=True)
    for utterance_id, (src_lang, tgt_lang), matrix in details:
        for layer, row in zip(layer_names(table.n_layers), matrix.tolist(), strict=True):
            for head, value in zip(layer_names(table.n_heads), row, strict=True):
                yield {
                    **start,
                    "utterance": utterance_id,
                    "src_lang": src_lang,
                    "tgt_lang": tgt_lang,
                    "layer": layer,
                    "head": head,
                    "correlation": value,
                }


def _whole(table: CorrelationTable | TokenTable, bootstrap: Bootstrap) -> dict[str, object]:
    start = {**_setting(table), "ids": table.ids, "left_out": dict(table.left_out)}
    if isinstance(table, TokenTable):
        return {
            **start,
            "utterance": table.utterance.tolist(),
            "words": table.words,
            "tokens": table.tokens,
            "position": table.position.tolist(),
            "length": table.length.tolist(),
            "starts_word": table.starts_word.tolist(),
            "per_token": table.correlation.tolist(),
        }
    low, high = table.interval(bootstrap).tolist()
    return {
        **start,
        "languages": table.languages,
        "layers": layer_names(table.n_layers),
        "heads": layer_names(table.n_heads),
        "mean": table.mean.tolist(),
        "low": low,
        "high": high,
        "n_utterances": table.n_utterances.tolist(),
        "n_undefined": table.n_undefined.tolist(),
        "per_utterance": table.per_utterance.tolist(),
    }


def _without_nan(value: Any) -> Any:
    """Replace NaN by None."""
    if isinstance(value, float):
        return None if math.isnan(value) else value
    if isinstance(value, Mapping):
        return {name: _without_nan(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return value
