"""Which stores may stand side by side in a table, and what each is called there.

A correlation depends on how the explanation was made as much as on the model. So stores of
different models and data are compared only where the explanation was made alike (paper, Tables 2
and 3), and stores of different occlusion probability only where nothing else differs (Table 6).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fbk_xattn.analysis.maps import NAMES
from fbk_xattn.errors import InputError
from fbk_xattn.store import AttributionStore, CurveStore

PROBABILITY: Mapping[str, str] = {
    "input": "--input-occlusion-probability",
    "encoder": "--encoder-occlusion-probability",
}
# Parameters that came later, with what stores without them were made with.
DEFAULTS: Mapping[str, Any] = {
    "--cross-attention": "weights",
    "--input-segmentation": "slic",
    "--previous-token-occlusion-probability": 0.0,
    "--scorer": "kl",
}
SHARED = ("--cross-attention", "--num-masks", "--scorer")
WHAT_IS_STORED = ("--explain", "--save-cross-attention")
# What an utterance of the data has, besides its features.
DATA = ("src_lang", "tgt_lang", "src_text", "tgt_text")
# Between features after CMVN; those of two backends differ by less than 0.01.
FEATURE_TOLERANCE = 0.1
# Of curves: what their store has of the one with the maps, and what makes one map of it.
OF_THE_MAPS = " of the maps"
OF_A_MAP = (
    "--deletion-map",
    "--deletion-aggregation",
    "--deletion-layers",
    "--deletion-heads",
    "--deletion-seed",
)


def store_names(stores: Sequence[AttributionStore | CurveStore]) -> list[str]:
    """Return short names of stores: the folders' own, or whole paths where those are not unique."""
    names = [store.path.resolve().name for store in stores]
    return [
        name if names.count(name) == 1 else str(store.path)
        for name, store in zip(names, stores, strict=True)
    ]


def flag(name: str) -> str:
    """Return a parameter's name as stores have it: ``num-masks`` is ``--num-masks``."""
    return "--" + name.lstrip("-")


def parameter(store: AttributionStore | CurveStore, name: str) -> Any:
    """Return a parameter of a store; None if it does not have it."""
    return store.meta["parameters"].get(name, DEFAULTS.get(name))


def has_parameter(store: AttributionStore, name: str) -> bool:
    """Tell whether a store was made with a parameter."""
    return name in store.meta["parameters"] or name in DEFAULTS


def explains(store: AttributionStore, target: str) -> bool:
    """Tell whether the run that made a store was asked to explain a target."""
    return target in store.meta["parameters"].get("--explain", [target])


def method_parameters(store: AttributionStore, target: str) -> set[str]:
    """Return the names of the parameters that say how a target was explained."""
    names = set(SHARED)
    if target == "encoder":
        return names | {PROBABILITY["encoder"]}
    segmentation = parameter(store, "--input-segmentation")
    starts = ("--input-", "--previous-token-", f"--{segmentation}-")
    names |= {name for name in store.meta["parameters"] if name.startswith(starts)}
    return names | {PROBABILITY["input"], *(n for n in DEFAULTS if n.startswith(starts))}


def check_same_method(
    stores: Sequence[AttributionStore], target: str, vary: Collection[str] = ()
) -> None:
    """Check that a target was explained alike in all stores; model, data and decoding may differ.

    Args:
        stores: That have the target.
        target: ``"input"`` or ``"encoder"``.
        vary: Parameters that may differ.

    Raises:
        InputError: They differ in a parameter, which the message names.
    """
    for store in stores[1:]:
        names = method_parameters(stores[0], target) | method_parameters(store, target)
        _check_same(stores[0], store, names - set(vary), f"to compare {NAMES[target]}")


def check_same_but_probability(stores: Sequence[AttributionStore], target: str) -> None:
    """Check that stores differ in the occlusion probability of a target and in nothing else.

    What concerns the other target alone, and which parts were stored, may differ.

    Raises:
        InputError: They differ in another parameter, one lacks the probability, or two share it.
    """
    varied = PROBABILITY[target]
    seen: dict[Any, AttributionStore] = {}
    for store in stores:
        value = parameter(store, varied)
        if value is None:
            raise InputError(f"{store.path}: its meta.json has no {varied}, expected its value")
        if value in seen:
            raise InputError(
                f"{store.path}: {varied} is {value} as in {seen[value].path}, expected stores that "
                "differ in it"
            )
        seen[value] = store
    other = "encoder" if target == "input" else "input"
    for store in stores[1:]:
        names = {*stores[0].meta["parameters"], *store.meta["parameters"], *DEFAULTS}
        for one in (stores[0], store):
            names -= method_parameters(one, other) - method_parameters(one, target)
        _check_same(stores[0], store, names - {varied, *WHAT_IS_STORED}, f"in all but {varied}")


def check_same_utterances(ids: Mapping[str, Collection[str]]) -> None:
    """Check that what is compared was measured on the same utterances.

    Args:
        ids: The utterances of each store, by its name.

    Raises:
        InputError: Some are in one and not in another; the first few are named.
    """
    everything = set().union(*ids.values())
    for name, there in ids.items():
        absent = sorted(everything - set(there))
        if absent:
            more = f" and {len(absent) - 5} more" if len(absent) > 5 else ""
            raise InputError(
                f"{name}: without {len(absent)} utterances of the other stores "
                f"({', '.join(absent[:5])}{more}), expected the same in all"
            )


def same_features(one: NDArray[np.floating[Any]], other: NDArray[np.floating[Any]]) -> bool:
    """Tell whether two arrays ``(T, F)`` are features of the same audio, whatever computed them."""
    return one.shape == other.shape and np.allclose(
        one, other, rtol=0.0, atol=FEATURE_TOLERANCE, equal_nan=True
    )


def data_difference(one: AttributionStore, other: AttributionStore) -> str | None:
    """Say in what the data of two stores differ: utterances, languages, texts or features.

    Stores of ASR and ST, or of clean and noisy audio, may share ids and parameters. Files are read
    no further than to the first difference.

    Returns:
        What the first difference in ``other`` is, ``None`` if there is none.

    Raises:
        InputError: A file is damaged.
    """
    ids = one.ids()
    if differing := sorted({*ids} ^ {*other.ids()}):
        return f"utterance {differing[0]!r} is not both there and in {one.path}"
    for utterance_id in ids:
        theirs, ours = one.texts(utterance_id), other.texts(utterance_id)
        for name in DATA:
            if theirs[name] != ours[name]:
                return (
                    f"utterance {utterance_id!r} has {name} {ours[name]!r}, but {theirs[name]!r} "
                    f"in {one.path}"
                )
        if not same_features(one.fbank(utterance_id), other.fbank(utterance_id)):
            return f"utterance {utterance_id!r} has other features than in {one.path}"
    return None


def check_same_data(stores: Sequence[AttributionStore]) -> None:
    """Check that stores hold the same utterances, with the same languages, texts and features.

    Raises:
        InputError: They do not; the message names a store and an utterance.
    """
    for store in stores[1:]:
        check_same_utterances({str(one.path): one.ids() for one in (stores[0], store)})
        if difference := data_difference(stores[0], store):
            raise InputError(f"{store.path}: {difference}; expected stores of the same data")


def check_same_decoding(stores: Sequence[CurveStore]) -> None:
    """Check that curves were decoded alike; model, data, mode and map may differ.

    Raises:
        InputError: They differ in a flag of decoding, which the message names.
    """
    for store in stores[1:]:
        names = {*stores[0].meta["parameters"], *store.meta["parameters"]}
        decoding = {
            name
            for name in names
            if name.startswith("--") and not name.endswith(OF_THE_MAPS) and name not in OF_A_MAP
        }
        _check_same(stores[0], store, decoding, "to compare curves")


def different_parameters(
    one: AttributionStore, other: AttributionStore, targets: Collection[str]
) -> dict[str, tuple[Any, Any]]:
    """Return the parameters in which two stores differ, with the value in each.

    What concerns other targets alone, and which parts were stored, does not count.

    Args:
        one: A store.
        other: Another.
        targets: That both have.
    """
    names = {*one.meta["parameters"], *other.meta["parameters"], *DEFAULTS} - {*WHAT_IS_STORED}
    for store in (one, other):
        ours = {name for target in targets for name in method_parameters(store, target)}
        for target in PROBABILITY:
            names -= method_parameters(store, target) - ours
    values = {name: (parameter(one, name), parameter(other, name)) for name in sorted(names)}
    return {name: pair for name, pair in values.items() if pair[0] != pair[1]}


def same_but_probability(one: AttributionStore, other: AttributionStore) -> bool:
    """Tell whether two stores differ in nothing but occlusion probabilities."""
    names = {*one.meta["parameters"], *other.meta["parameters"], *DEFAULTS}
    names -= {*PROBABILITY.values(), *WHAT_IS_STORED}
    return all(parameter(one, name) == parameter(other, name) for name in names)


def _check_same(
    first: AttributionStore | CurveStore,
    other: AttributionStore | CurveStore,
    names: Collection[str],
    why: str,
) -> None:
    for name in sorted(names):
        theirs, ours = parameter(first, name), parameter(other, name)
        if theirs != ours:
            raise InputError(
                f"{other.path}: {name} is {ours}, but {theirs} in {first.path}; expected the same "
                f"{why}"
            )
