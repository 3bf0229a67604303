"""``examples/prompts/study/explain.sh``: what it runs, what it skips, and what it says."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from fairseq import options

import fbk_xattn.plugin  # noqa: F401
from examples.prompts.study import subset
from examples.prompts.study.settings import CURVES, EXPLAINED, PROBABILITIES
from fbk_xattn.data.manifest import ManifestRow, read_manifest, write_manifest
from fbk_xattn.tasks.deletion_options import DeletionOptions
from fbk_xattn.tasks.options import ExplanationOptions

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "examples" / "prompts" / "study" / "explain.sh"
TASKS = ("asr_en", "asr_it", "st_en_it", "st_it_en")


def manifest_row(name, speaker="s", n_frames=10):
    return ManifestRow(name, "a.npy", n_frames, speaker, "en", "a", "en", "a")


@pytest.fixture
def study(tmp_path):
    """A data folder, a model, and a fairseq-generate that writes down what it was called with."""
    data = tmp_path / "data"
    data.mkdir()
    (data / "config.yaml").touch()
    for split in ("test", "dev"):
        for task in TASKS:
            rows = [manifest_row(f"{task}/{n}", "ab"[n % 2], n + 1) for n in range(8)]
            write_manifest(data / f"{split}_{task}.tsv", rows)
    (tmp_path / "model.pt").touch()
    tools = tmp_path / "tools"
    tools.mkdir()
    fake = tools / "fairseq-generate"
    # Fails where a file FAIL names what is in its command line.
    fake.write_text(
        f'#!/bin/sh\necho "$@" "gpu=$CUDA_VISIBLE_DEVICES" >> "{tmp_path}/called"\n'
        f'for word in $(cat "{tmp_path}/FAIL" 2>/dev/null); do\n'
        '    case "$*" in *"$word"*) echo "no more room"; exit 1 ;; esac\ndone\n'
    )
    fake.chmod(0o755)
    return tmp_path


def run(study, *arguments, data=True):
    given = ["--data", study / "data", "--model", study / "model.pt"] if data else []
    environment = {k: v for k, v in os.environ.items() if k != "CUDA_VISIBLE_DEVICES"}
    return subprocess.run(
        [shutil.which("bash"), SCRIPT, *map(str, given), "--work", study / "work", *arguments],
        env={
            **environment,
            "PATH": f"{study / 'tools'}:{os.environ['PATH']}",
            "PYTHON": sys.executable,
        },
        capture_output=True,
        text=True,
        check=False,
    )


def called(study):
    file = study / "called"
    return file.read_text().splitlines() if file.is_file() else []


def test_its_names_are_those_of_the_results(study):
    assert run(study, "--list").stdout.split() == [*EXPLAINED, *CURVES]


def test_every_command_is_one_that_fairseq_takes(study):
    result = run(study, "--cpu", "--dry-run", "all", "--", "--lenpen", "0.5")
    assert result.returncode == 0, result.stderr
    assert not called(study)
    parsed = {}
    for line in result.stdout.splitlines():
        name, _, command = line.partition(": ")
        parser = options.get_generation_parser()
        parsed[name] = options.parse_args_and_arch(parser, command.split()[1:])
    assert list(parsed) == [*EXPLAINED, *CURVES]
    work = study / "work"
    for name in EXPLAINED:
        explanation = ExplanationOptions.from_args(parsed[name])
        assert explanation.attribution_dir == work / "stores" / name
        assert explanation.targets == ("input", "encoder")
        assert explanation.save_cross_attention
        assert parsed[name].lenpen == 0.5
    test = ",".join(f"test_{task}" for task in TASKS)
    assert parsed["main"].gen_subset == test
    assert (parsed["main"].num_masks, parsed["main"].seed) == (20_000, 1)
    for name, p in PROBABILITIES.items():
        assert parsed[name].gen_subset == test.replace("test", "dev")
        for target in ("input", "encoder"):
            assert getattr(parsed[name], f"{target}_occlusion_probability") == p
    assert (parsed["n5000-2"].num_masks, parsed["n5000-2"].seed) == (5000, 2)
    assert parsed["bf16"].explanation_precision == "bf16"
    maps = {}
    for name in CURVES:
        deletion = DeletionOptions.from_args(parsed[name])
        assert deletion.output == work / "deleted" / name
        maps[name] = (deletion.ranking.map_name, deletion.attribution_dir.name, deletion.mode)
    assert maps["delete-random-frames"] == ("random-frames", "main", "deletion")
    assert maps["delete-2d-avg"] == ("input-frames", "main", "deletion")
    assert maps["delete-p3-encoder"] == ("encoder", "p3", "deletion")
    assert maps["insert-input"] == ("input", "main", "insertion")
    assert DeletionOptions.from_args(parsed["delete-2d-avg"]).ranking.aggregation == "2d-avg"


def test_what_is_done_is_skipped_unless_it_is_asked_for_otherwise(study):
    assert run(study, "main").returncode == 0
    again = run(study, "main")
    assert (again.returncode, again.stdout) == (0, "main: done\n")
    assert len(called(study)) == 1
    assert run(study, "--fewer", "100", "--sweep-masks", "5000", "main", "p3").returncode == 0
    assert "--num-masks 50 " in called(study)[2]
    assert "--num-masks 200 " in called(study)[1]
    (study / "model.pt").write_text("another")
    assert run(study, "--fewer", "100", "main").returncode == 0
    assert len(called(study)) == 4


def test_data_that_are_there_stay_for_those_who_read_them(study):
    assert run(study, "main").returncode == 0
    data = study / "work" / "data"
    before = {file.name: file.lstat().st_ino for file in data.iterdir() if file.is_symlink()}
    assert {"config.yaml", "test_asr_en.tsv"} <= before.keys()
    (data / "test_asr_it.tsv").unlink()
    (data / "dev_asr_it.tsv").unlink()
    (data / "dev_asr_it.tsv").symlink_to("elsewhere")
    assert run(study, "p3").returncode == 0
    after = {file.name: file.lstat().st_ino for file in data.iterdir() if file.is_symlink()}
    changed = {"test_asr_it.tsv", "dev_asr_it.tsv"}
    assert {n: i for n, i in after.items() if n not in changed} == {
        n: i for n, i in before.items() if n not in changed
    }
    assert all((data / name).is_file() for name in after)


def test_what_is_missing_before_is_named(study):
    result = run(study, "delete-p3-input")
    assert result.returncode == 1
    assert "delete-p3-input: needs p3, which is not done" in result.stderr
    assert not called(study)


def test_a_failure_shows_its_last_words_and_does_not_stop_the_others(study):
    (study / "FAIL").write_text("stores/p3")
    result = run(study, "--jobs", "3", "probabilities", "delete-p3-input", "delete-p5-input")
    assert result.returncode == 1
    assert "p3: failed" in result.stderr
    assert "no more room" in result.stderr
    assert "error: 2 of the above failed" in result.stderr  # deletion of p3 as well
    done = {path.name for path in (study / "work" / "done").iterdir()}
    assert done == {"p1", "p5", "p7", "p9", "delete-p5-input"}
    (study / "FAIL").unlink()
    assert run(study, "probabilities", "delete-p3-input").returncode == 0
    assert len([line for line in called(study) if "stores/p3 --save" in line]) == 2
    assert len([line for line in called(study) if "stores/p1" in line]) == 1


def test_gpus_are_taken_in_turns(study):
    assert run(study, "--gpus", "0,1", "--jobs", "2", "probabilities").returncode == 0
    assert sorted(line.rpartition("gpu=")[2] for line in called(study)) == ["0"] * 3 + ["1"] * 2


def test_the_subset_is_of_every_task_and_voice(study):
    result = run(study, "--subset", "9", "--per-task", "4", "fp32")
    assert result.returncode == 0, result.stderr
    folder = study / "work" / "data"
    assert (folder / "config.yaml").is_symlink()
    assert len(read_manifest(folder / "test_asr_en.tsv")) == 4
    assert len(read_manifest(study / "data" / "test_asr_en.tsv")) == 8
    rows = read_manifest(folder / "study_subset.tsv")
    counts = [sum(row.id.startswith(task) for row in rows) for task in TASKS]
    assert counts == [3, 2, 2, 2]
    assert {row.speaker for row in rows if row.id.startswith("asr_it")} == {"a", "b"}


def test_rows_are_chosen_at_equal_distances_of_length():
    rows = [manifest_row(str(n), n_frames=n) for n in (5, 3, 1, 4, 2, 6)]
    assert [row.n_frames for row in subset.chosen(rows, 3)] == [2, 4, 6]
    assert [row.n_frames for row in subset.chosen(rows, 99)] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["everything"], "unknown argument everything"),
        (["delete-frames"], "unknown argument delete-frames"),
        (["n3000-1"], "unknown argument n3000-1"),
        ([], "no NAME given"),
        (["--jobs"], "--jobs expects a number"),
    ],
)
def test_wrong_arguments_are_named(study, arguments, message):
    result = run(study, *arguments)
    assert result.returncode != 0
    assert message in result.stderr
    assert not called(study)


def test_data_and_model_are_looked_for_first(study):
    (study / "data" / "dev_st_en_it.tsv").unlink()
    result = run(study, "main")
    assert result.returncode == 2
    assert result.stderr.endswith("data: no dev_st_en_it.tsv\n")
    result = run(study, "main", data=False)
    assert "--data : expected a folder with config.yaml" in result.stderr
    assert run(study, "--help").stdout.count("\n") > 20


def test_a_number_of_no_utterances_is_refused(study, capsys):
    manifest = study / "data" / "test_asr_en.tsv"
    assert subset.main(["0", str(study / "out.tsv"), str(manifest)]) == 2
    assert capsys.readouterr().err == "error: 0 utterances: expected at least 1\n"
