"""The verdicts of ``examples/prompts/study/findings.py`` follow the numbers, both ways."""

from __future__ import annotations

import numpy as np
import pytest

from examples.prompts.study.convergence import masks_for
from examples.prompts.study.findings import deletion_gain, findings, findings_section
from examples.prompts.study.measure import SETTINGS, Curves, Explained
from examples.prompts.study.settings import DELETED, INSERTED
from fbk_xattn.analysis import CorrelationTable
from fbk_xattn.analysis.bootstrap import Bootstrap
from fbk_xattn.analysis.differences import FAILS, HOLDS, UNDECIDED
from fbk_xattn.errors import InputError
from fbk_xattn.report.grid import to_markdown

N = 20
IDS = tuple(f"u{n:02d}" for n in range(N))
REFERENCE = "one two three four five six"


def explained(values):
    """Make utterances of ASR whose correlations with each target are ``values[target]``."""
    tables = {}
    for setting in SETTINGS:
        noise = np.random.default_rng(3).normal(0, 0.01, size=(N, 1, 1))
        tables[setting] = CorrelationTable(
            setting.target, setting.aggregation, IDS, values[setting.target] + noise,
            languages=(("en", "en"),) * N,
        )  # fmt: skip
    texts = (REFERENCE,) * N
    return Explained(
        {}, IDS, (("en", "en"),) * N, ("s",) * N, texts, texts, tables, np.zeros((N, 21)), 0
    )


def table(layers, average, heads=(0.1, 0.1)):
    """Correlations ``(L + 1, H + 1)``: the heads of each layer, their average, that of layers."""
    rows = [[*heads, layer] for layer in layers]
    return np.array([*rows, [*heads, average]])


def curves(n_words, languages=("en", "en"), ids=IDS):
    """Make curves whose hypotheses have that many words of the reference at 50 percent."""
    words = REFERENCE.split()
    hypotheses = (REFERENCE, " ".join(words[:n_words]), "")
    return Curves(
        {}, ids, (languages,) * len(ids), (REFERENCE,) * len(ids), np.array([0, 50, 100]),
        (hypotheses,) * len(ids),
    )  # fmt: skip


def verdicts(main, dev, words):
    found = findings(
        main,
        {"input": dev, "encoder": dev},
        {name: curves(words.get(name, 3)) for name in (*DELETED, *INSERTED)},
        Bootstrap(),
    )
    return {(f.claim, f.measure): f.by_task["ASR en"].verdict for f in found}


GOOD = {
    "input": table((0.2, 0.25, 0.35, 0.3), 0.4, heads=(0.1, 0.2)),
    "encoder": table((0.5, 0.55, 0.65, 0.6), 0.7, heads=(0.3, 0.4)),
}
# Heads and layers that are worse averaged, early layers first, the input above the encoder output.
BAD = {
    "input": table((0.55, 0.6, 0.5, 0.45), 0.4, heads=(0.7, 0.65)),
    "encoder": table((0.35, 0.4, 0.2, 0.1), 0.05, heads=(0.7, 0.6)),
}
WORDS = {
    "delete-input": 0,
    "delete-2d-max": 1,
    "delete-2d-avg": 2,
    "delete-cross-attention": 3,
    "delete-encoder": 4,
}
RANDOM = {name: 5 for name in DELETED if "random" in name}


def test_everything_holds_where_the_numbers_say_so():
    found = verdicts(explained(GOOD), explained(GOOD), WORDS | RANDOM)
    assert set(found.values()) == {HOLDS}
    assert len(found) == 18


def test_nothing_holds_where_the_numbers_say_the_opposite():
    opposite = {name: 5 - n for name, n in (WORDS | RANDOM).items()}
    found = verdicts(explained(BAD), explained(BAD), opposite)
    assert set(found.values()) == {FAILS}


def test_equal_curves_decide_nothing():
    found = verdicts(explained(GOOD), explained(GOOD), {})
    assert {v for (_, measure), v in found.items() if "deletion" in measure} == {UNDECIDED}


def test_the_best_layer_is_that_of_the_dev_split():
    """A layer that is best by chance on the test split is not what is compared with."""
    lucky = GOOD | {"input": table((0.2, 0.25, 0.35, 0.9), 0.4)}
    of_layers = ("averaging layers helps", "all layers averaged, less the best layer (input)")
    assert verdicts(explained(lucky), explained(GOOD), {})[of_layers] == HOLDS
    assert verdicts(explained(lucky), explained(lucky), {})[of_layers] == FAILS


def test_one_layer_has_neither_early_nor_late():
    one = {target: table((0.3,), 0.3) for target in ("input", "encoder")}
    found = verdicts(explained(one), explained(one), {})
    assert {v for (claim, _), v in found.items() if claim == "late layers are best"} == {UNDECIDED}


@pytest.mark.parametrize(("languages", "gain"), [(("en", "en"), 25.0), (("en", "it"), None)])
def test_a_map_is_better_where_less_is_left(languages, gain):
    harms, spares = curves(1, languages), curves(4, languages)
    (task,) = set(harms.tasks)
    one, other = (
        deletion_gain(*pair, task, Bootstrap()) for pair in ((harms, spares), (spares, harms))
    )
    assert (one.verdict, other.verdict) == (HOLDS, FAILS)
    assert one.value == pytest.approx(-other.value)
    if gain is not None:
        assert one.value == pytest.approx(gain)  # 3 of 6 words, in a triangle of half the width


def test_curves_of_other_utterances_do_not_compare():
    with pytest.raises(InputError, match="expected the same in all"):
        deletion_gain(curves(1), curves(4, ids=IDS[:-1]), "ASR en", Bootstrap())


def test_a_task_without_dev_split_is_named():
    main = explained(GOOD)
    dev = explained(GOOD)
    other = Explained(
        {}, IDS, (("it", "it"),) * N, dev.speakers, dev.references, dev.hypotheses, dev.tables,
        dev.size, 0,
    )  # fmt: skip
    with pytest.raises(InputError, match="ASR en: no utterance in the dev split"):
        verdicts(main, other, {})


def test_the_table_counts_the_tasks_of_each_verdict():
    found = findings(
        explained(GOOD),
        {"input": explained(GOOD), "encoder": explained(GOOD)},
        {name: curves((WORDS | RANDOM).get(name, 3)) for name in (*DELETED, *INSERTED)},
        Bootstrap(),
    )
    rows = [
        line for line in to_markdown(findings_section(found, Bootstrap())).splitlines()
        if "] holds |" in line
    ]  # fmt: skip
    assert len(rows) == 18
    assert all(row.endswith("| 1 / 0 / 0 |") for row in rows)


def test_masks_are_extrapolated_as_spearman_and_brown_do():
    # 0.5 at 100 masks: three times as many give 0.75, nineteen times 0.95.
    assert masks_for(0.5, 100, 0.75) == pytest.approx(300)
    assert masks_for(0.5, 100) == pytest.approx(1900)
    assert np.isnan(masks_for(-0.1, 100))
    assert np.isnan(masks_for(float("nan"), 100))
