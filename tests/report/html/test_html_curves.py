"""The curves of the page."""

import numpy as np
import pytest

from fbk_xattn.analysis.deletion import ScoredCurve
from fbk_xattn.report.html.curves import N_LOOKS, charts_of


def curve(map_name, highest=50.0, languages=("en", "en"), score="wer"):
    return ScoredCurve(
        mode="deletion", map_name=map_name, score=score, languages=languages, ids=("u",),
        percentages=np.array([0, 50, 100]), scores=np.array([0.0, highest / 2, highest]),
    )  # fmt: skip


def test_a_map_has_the_same_look_in_all_charts():
    st = ("en", "it")
    curves = [
        ("a", curve("input")),
        ("b", curve("encoder")),
        ("b", curve("encoder", languages=st)),
        ("c", curve("random", languages=st)),
        ("a", curve("input", languages=st)),
    ]
    asr_chart, st_chart = charts_of(curves)
    looks = {line.name: line.look for line in st_chart.lines}
    assert {line.name: line.look for line in asr_chart.lines}.items() <= looks.items()
    assert sorted(looks.values()) == [0, 1, 2]
    assert (asr_chart.title, st_chart.title) == ("Deletion, ASR en", "Deletion, ST en-it")
    assert [line.unit for line in asr_chart.lines] == ["cells", "encoder steps"]


def test_more_curves_than_looks_begin_again():
    (chart,) = charts_of([(f"folder{n}", curve("input")) for n in range(N_LOOKS + 1)])
    assert [line.look for line in chart.lines] == [*range(N_LOOKS), 0]


@pytest.mark.parametrize(
    ("highest", "ticks"),
    [
        (0.0, [0, 1]),
        (0.4, [0, 1]),
        (4.2, [0, 1, 2, 3, 4, 5]),
        (31.7, [0, 10, 20, 30, 40]),
        (100.0, [0, 20, 40, 60, 80, 100]),
        (101.0, [0, 25, 50, 75, 100, 125]),
        (1730.0, [0, 400, 800, 1200, 1600, 2000]),
    ],
)
def test_ticks_are_round_and_hold_the_highest_value(highest, ticks):
    (chart,) = charts_of([("a", curve("input", highest))])
    assert [int(text) for _, text in chart.y_ticks] == ticks
    assert chart.y_ticks[0][0] == chart.bottom
    assert chart.y_ticks[-1][0] == chart.top
    heights = [float(point.split(",")[1]) for point in chart.lines[0].points.split()]
    assert min(heights) >= chart.top


def test_no_curve_is_no_chart():
    assert charts_of([]) == []
