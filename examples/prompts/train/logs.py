"""Reads the losses that ``train.sh`` leaves in its logs, and lays them out as a table."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fbk_xattn.errors import InputError

STAGES = ("asr", "model")  # names of their logs, in their order
PARTS = {
    "nll_loss": "cross-entropy",
    "ctc_loss": "CTC of transcripts",
    "auxiliary_loss": "CTC of target texts",
}
# What the task of recognition and translation appends to the names: target texts of the manifest,
# and transcripts in their place. Other tasks append nothing.
OWN, TRANSCRIPTS = ("", "_st"), "_asr"
COLUMNS = (*(part + kind for part in PARTS for kind in (*OWN, TRANSCRIPTS)), "lr")
TRAINING = "train"  # beside the names of validation subsets
INNER = "train_inner"  # logger of means over --log-interval updates; TRAINING is that of epochs
LOGGED = re.compile(r"\| INFO \| (\S+) \| (\{\".*)")
STARTED = re.compile(
    r"\| fairseq\.trainer \| (?:No existing checkpoint|Loaded checkpoint .* @ (\d+) updates\))"
)

# Values by name, of a subset and an update; these of each stage.
Log = dict[tuple[str, int], dict[str, float]]
Training = dict[str, Log]


def read_training(folder: Path) -> Training:
    """Read the logs of those stages that a ``SAVE_DIR`` has.

    Raises:
        InputError: It has none, or one is not as expected.
    """
    paths = {stage: folder / f"{stage}.log" for stage in STAGES}
    training = {stage: read_log(path) for stage, path in paths.items() if path.exists()}
    if not training:
        raise InputError(f"{folder}: no asr.log or model.log, expected a SAVE_DIR of train.sh")
    return training


def read_log(path: Path) -> Log:
    """Read what ``fairseq-train --log-format json`` printed, in one run or several.

    A run that goes on from a checkpoint replaces what came after it.

    Returns:
        Those of :data:`COLUMNS` that were logged (losses in bits a token), by rising update.
        Training is means over the updates since the one before, of epochs if there is nothing else.

    Raises:
        InputError: It cannot be read, is no such log, or a line of it is not whole.
    """
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}), expected a log") from None
    found: Log = {}
    for number, line in enumerate(lines, 1):
        if started := STARTED.search(line):
            found = {key: found[key] for key in found if key[1] <= int(started[1] or 0)}
        elif logged := LOGGED.search(line):
            try:
                update, values = _values(logged[1], json.loads(logged[2]))
            except (ValueError, TypeError, KeyError):
                raise InputError(
                    f"{path}, line {number}: expected JSON with losses and num_updates as "
                    f"fairseq-train --log-format json prints it, found {logged[2][:50]!r}"
                ) from None
            found[logged[1], update] = values
    if any(subset == INNER for subset, _ in found):
        found = {
            (TRAINING if subset == INNER else subset, update): values
            for (subset, update), values in found.items()
            if subset != TRAINING
        }
    if not any(values.keys() - {"lr"} for values in found.values()):
        raise InputError(
            f"{path}: no losses of ctc_multi_loss, expected the output of fairseq-train "
            "--log-format json"
        )
    return dict(sorted(found.items(), key=lambda point: point[0][1]))


def _values(logger: str, entry: dict[str, Any]) -> tuple[int, dict[str, float]]:
    prefix = "" if logger == INNER else f"{logger}_"
    # null: no batch since the line before was of this kind.
    given = {name: entry.get(prefix + name) for name in COLUMNS}
    values = {name: float(value) for name, value in given.items() if value is not None}
    return int(entry[f"{prefix}num_updates"]), values


def subsets(logs: Iterable[Log]) -> list[str]:
    """Return the names of what was validated on, in the order of the logs."""
    return list(dict.fromkeys(name for log in logs for name, _ in log if name != TRAINING))


def table(trainings: Mapping[str, Training]) -> str:
    """Lay all values out as tab-separated text, a row for each subset and update.

    Columns without a value are left out.
    """
    rows = [
        ((name, stage, subset, str(update)), log[subset, update])
        for name, training in trainings.items()
        for stage, log in training.items()
        for wanted in (TRAINING, *subsets([log]))
        for subset, update in log
        if subset == wanted
    ]
    columns = [name for name in COLUMNS if any(name in values for _, values in rows)]
    lines = [("name", "stage", "subset", "update", *columns)]
    for key, values in rows:
        lines.append((*key, *(f"{values[name]:g}" if name in values else "" for name in columns)))
    return "".join("\t".join(line) + "\n" for line in lines)
