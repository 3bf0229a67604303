"""The script that measures the analysis runs, on next to nothing; the times mean nothing."""

from scripts import benchmark_analysis


def test_a_quarter_and_the_whole_are_measured(tmp_path, capsys):
    flags = ["--utterances", "8", "--tokens", "3", "--frames", "41", "--folder", str(tmp_path)]
    assert benchmark_analysis.main(flags) in (0, 1)
    rows = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines()]
    assert [row[0] for row in rows[2:4]] == ["2", "8"]
    assert all(float(value) > 0 for row in rows[2:4] for value in row)
    assert list(tmp_path.iterdir()) == []
