"""The benchmark of the interactive report, at a size that takes a moment."""

from __future__ import annotations

import browser
import pytest

from scripts import benchmark_report


def test_every_figure_is_measured(capfd):
    if not browser.available():
        pytest.skip(browser.MISSING)
    sizes = ["--utterances", "2", "--tokens", "4", "--frames", "120", "--repetitions", "1"]
    code = benchmark_report.main(sizes)
    lines = capfd.readouterr().out.splitlines()
    start = lines.index("| what | measured | limit |")
    rows = [line.split(" | ") for line in lines[start + 2 :]]
    assert [row[0].removeprefix("| ") for row in rows] == list(benchmark_report.LIMITS)
    assert all(float(row[1].split()[0]) > 0 for row in rows[1:])
    assert code in (0, 1)  # times are this machine's
