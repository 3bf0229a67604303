"""``examples/prompts/train/curves.py`` on made-up logs, and the logs that ``train.sh`` leaves."""

from __future__ import annotations

import csv
import json
import math
import subprocess
import sys

import pytest
import test_recipes
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.colors import to_hex
from test_recipes import ROOT, run, write_command

from examples.prompts.train import curves
from examples.prompts.train.logs import read_log, read_training, table
from fbk_xattn.errors import InputError
from fbk_xattn.report.figures.style import LINE_COLOURS

recorded = test_recipes.recorded
SCRIPT = "prompts/train/train.sh"
DEV = ("dev_asr_en", "dev_st_en_it")


def line(logger, message):
    return f"2026-01-02 03:04:05 | INFO | {logger} | {message}"


def losses(update, kinds=("st", "asr"), scale=1.0):
    """Return what the task logs: all falls with updates."""
    values = {"loss": "9"}
    for number, kind in enumerate(kinds, 1):
        for weight, part in ((1, "nll_loss"), (3, "ctc_loss"), (2, "auxiliary_loss")):
            values[f"{part}_{kind}"] = f"{scale * weight * number / update:.3f}"
        values[f"ctc_too_short_{kind}"] = "0"
    return values


def inner(update, **kwargs):
    entry = losses(update, **kwargs) | {"num_updates": str(update), "lr": "0.001"}
    return line("train_inner", json.dumps({"epoch": 1, "update": 0.5, **entry}))


def of_epoch(update, logger="train", **kwargs):
    entry = losses(update, **kwargs) | {"num_updates": str(update)}
    entry |= {"lr": "0.002"} if logger == "train" else {}
    named = {f"{logger}_{name}": value for name, value in entry.items()}
    return line(logger, json.dumps({"epoch": 1, **named}))


def started(update=None):
    before = line("fairseq.trainer", "Preparing to load checkpoint out/asr/checkpoint_last.pt")
    if update is None:
        name = "No existing checkpoint found out/asr/checkpoint_last.pt"
    else:
        name = f"Loaded checkpoint out/asr/checkpoint_last.pt (epoch 2 @ {update} updates)"
    return f"{before}\n{line('fairseq.trainer', name)}"


def log(*lines):
    noise = line("fairseq_cli.train", "{'_name': None, 'common': {'_name': None}}")
    return "\n".join(("== asr: training in out/asr", noise, "  (encoder): Sequential(", *lines, ""))


def stage(updates, kinds=("st", "asr"), scale=1.0):
    """Return the log of one run: a line each update of a range, validation at its end."""
    lines = [inner(update, kinds=kinds, scale=scale) for update in updates]
    lines += [of_epoch(updates[-1], kinds=kinds)]
    return log(started(), *lines, *(of_epoch(updates[-1], name) for name in DEV))


@pytest.fixture
def saved(tmp_path):
    folder = tmp_path / "save"
    folder.mkdir()
    (folder / "asr.log").write_text(stage(range(10, 50, 10), kinds=("asr",)))
    (folder / "model.log").write_text(stage(range(5, 35, 5)))
    return folder


@pytest.fixture
def written(tmp_path):
    def write(*lines):
        path = tmp_path / "one.log"
        path.write_text(log(*lines))
        return path

    return write


def read_table(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def test_table_has_all_numbers(saved, tmp_path):
    curves.main([str(tmp_path / "new" / "curves.png"), f"all={saved}"])
    assert (tmp_path / "new" / "curves.png").read_bytes().startswith(b"\x89PNG")
    rows = read_table(tmp_path / "new" / "curves.tsv")
    assert {row["name"] for row in rows} == {"all"}
    places = [(row["stage"], row["subset"], int(row["update"])) for row in rows]
    assert places == [
        *(("asr", "train", update) for update in (10, 20, 30, 40)),
        *(("asr", name, 40) for name in DEV),
        *(("model", "train", update) for update in (5, 10, 15, 20, 25, 30)),
        *(("model", name, 30) for name in DEV),
    ]
    first, validated, later = rows[1], rows[4], rows[-3]
    assert (first["nll_loss_asr"], first["ctc_loss_asr"]) == ("0.05", "0.15")
    assert (first["auxiliary_loss_asr"], first["nll_loss_st"], first["lr"]) == ("0.1", "", "0.001")
    assert (validated["nll_loss_st"], validated["nll_loss_asr"]) == ("0.025", "0.05")
    assert (validated["ctc_loss_st"], validated["lr"]) == ("0.075", "")
    assert (later["nll_loss_st"], later["auxiliary_loss_asr"]) == ("0.033", "0.133")
    assert "nll_loss" not in rows[0]
    assert "loss" not in rows[0]


def drawn(figure):
    """Return the lines of each panel by its label: colour, style and points."""
    titles = [text.get_text() for text in figure.texts]
    panels = [axes for axes in figure.axes if axes.axison]
    assert len(titles) == len(panels)
    return {
        title: [
            (to_hex(each.get_color()).upper(), each.get_linestyle(), each.get_xydata().tolist())
            for each in axes.lines
            if len(each.get_xydata())
        ]
        for title, axes in zip(titles, panels, strict=True)
    }


def test_second_stage_follows_the_first(saved, tmp_path):
    short = tmp_path / "short"
    short.mkdir()
    (short / "asr.log").write_text(stage(range(10, 30, 10), kinds=("asr",)))
    figure = curves.draw({"all": read_training(saved), "short": read_training(short)})
    panels = drawn(figure)
    assert list(panels) == [
        "Training: cross-entropy",
        "Training: CTC of transcripts",
        "Training: CTC of target texts",
        *(f"Validation: cross-entropy, {name}" for name in DEV),
    ]
    one, other = LINE_COLOURS[:2]
    asr, mark, own, transcripts, second = panels["Training: cross-entropy"]
    assert asr == (one, "--", [[10, 0.1], [20, 0.05], [30, 0.033], [40, 0.025]])
    assert (mark[:2], [x for x, _ in mark[2]]) == ((one, ":"), [40, 40])
    assert (own[:2], own[2][0], own[2][-1]) == ((one, "-"), [45, 0.2], [70, 0.033])
    assert (transcripts[:2], transcripts[2][0]) == ((one, "--"), [45, 0.4])
    assert second == (other, "--", [[10, 0.1], [20, 0.05]])
    first, _, then, short_one = panels[f"Validation: cross-entropy, {DEV[1]}"]
    assert (first, then) == ((one, "-", [[40, 0.025]]), (one, "-", [[70, 0.033]]))
    assert short_one == (other, "-", [[20, 0.05]])
    for axes in figure.axes[:-1]:
        low, high = axes.get_ylim()
        assert axes.get_xlim() == (0, 70)
        losses_of = [each for each in axes.lines if each.get_linestyle() != ":"]
        assert all(low <= y <= high for each in losses_of for _, y in each.get_xydata())
        assert len([tick for tick in axes.get_yticks() if low <= tick <= high]) >= 2
    legend = [text.get_text() for text in figure.axes[-1].get_legend().get_texts()]
    assert legend == [
        *("all", "short", "target texts", "transcripts in their place", "second stage begins")
    ]


def test_what_a_run_repeats_replaces_what_was_there(written):
    path = written(
        *(started(), inner(10), inner(20), of_epoch(20, "dev"), inner(30), of_epoch(30, "dev")),
        *(started(20), inner(28, scale=2), inner(36, scale=2), of_epoch(36, "dev")),
    )
    found = read_log(path)
    assert list(found) == [
        *(("train", 10), ("train", 20), ("dev", 20), ("train", 28), ("train", 36), ("dev", 36))
    ]
    assert found["train", 20]["nll_loss_st"] == 0.05
    assert found["train", 36]["nll_loss_st"] == 0.056
    again = read_log(written(started(), inner(10), inner(20), started(), inner(10, scale=2)))
    assert again == read_log(written(inner(10, scale=2)))


def test_the_later_of_two_lines_counts_also_without_a_start(written):
    found = read_log(written(inner(10), inner(20), inner(10, scale=3)))
    assert {key: values["nll_loss_st"] for key, values in found.items()} == {
        ("train", 10): 0.3,
        ("train", 20): 0.05,
    }


@given(st.lists(st.tuples(st.integers(1, 30), st.integers(1, 9)), min_size=1, max_size=20))
def test_updates_rise_and_the_last_line_of_each_counts(tmp_path_factory, lines):
    path = tmp_path_factory.getbasetemp() / "rising.log"
    path.write_text(log(*(inner(update, scale=scale * update) for update, scale in lines)))
    found = read_log(path)
    assert [update for _, update in found] == sorted({update for update, _ in lines})
    assert {at: values["nll_loss_st"] for (_, at), values in found.items()} == dict(lines)


def test_epochs_stand_in_for_a_training_without_other_lines(written):
    found = read_log(written(started(), of_epoch(7), of_epoch(14)))
    assert [*found] == [("train", 7), ("train", 14)]
    assert found["train", 7]["lr"] == 0.002
    assert [*read_log(written(inner(5), of_epoch(7)))] == [("train", 5)]


def test_names_of_a_task_without_recognition(written):
    entry = {"epoch": 1, "nll_loss": "2", "ctc_loss": "3", "num_updates": "5", "lr": "1"}
    path = written(line("train_inner", json.dumps(entry)))
    training = {"asr": read_log(path)}
    header, row = table({"plain": training}).splitlines()
    assert header.split("\t")[4:] == ["nll_loss", "ctc_loss", "lr"]
    assert row.split("\t") == ["plain", "asr", "train", "5", "2", "3", "1"]
    figure = curves.draw({"plain": training})
    colour = LINE_COLOURS[0]
    assert drawn(figure)["Training: cross-entropy"] == [(colour, "-", [[5, 2]])]
    legend = [text.get_text() for text in figure.axes[-1].get_legend().get_texts()]
    assert legend == ["plain"]


def test_intervals_without_a_kind_and_diverged_ones(written, tmp_path):
    entry = {"epoch": 1, "nll_loss_st": "nan", "nll_loss_asr": None, "ctc_loss_st": "inf"}
    diverged = line("train_inner", json.dumps(entry | {"num_updates": "5", "lr": "1"}))
    found = read_log(written(diverged, inner(10)))
    assert math.isnan(found["train", 5]["nll_loss_st"])
    assert "nll_loss_asr" not in found["train", 5]
    row = table({"a": {"asr": found}}).splitlines()[1].split("\t")
    assert row[4:] == ["nan", "", "inf", "", "", "", "1"]
    curves.save_figure(curves.draw({"a": {"asr": found}}), tmp_path / "drawn.png")


@pytest.mark.parametrize("value", [1e-4, 0.0301, 0.5, 1.0, 1.99, 5.0, 9.99, 10.0, 1000.0, 4321.0])
def test_limits_are_round_and_enclose(value):
    low, high = curves._limit(value, -1), curves._limit(value, 1)
    assert value / 3 < low < value < high < 3 * value
    for limit in (low, high):
        assert f"{limit:.6e}".partition("e")[0].rstrip("0").rstrip(".") in ("1", "2", "5")


CUT = inner(20)[:90]
SIMPLE = "2026-01-02 | INFO | train_inner | epoch 001:     10 / 50 loss=9, num_updates=10"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "asr.log: no losses of ctc_multi_loss"),
        (log(SIMPLE), "asr.log: no losses of ctc_multi_loss"),
        (log(started(), inner(10), started()), "asr.log: no losses of ctc_multi_loss"),
        (log(inner(10, kinds=())), "asr.log: no losses of ctc_multi_loss"),
        (log(inner(10), CUT), "asr.log, line 5: expected JSON with losses and num_updates"),
        (log(line("dev", '{"epoch": 1, "dev_nll_loss": "1"}')), "asr.log, line 4: expected JSON"),
        (log(inner(10).replace('"10"', '"ten"')), "asr.log, line 4: expected JSON"),
        (log(inner(10).replace('"10"', "[10]")), "asr.log, line 4: expected JSON"),
        (log(inner(10).replace('"0.100"', '"low"')), "asr.log, line 4: expected JSON"),
    ],
)
def test_wrong_logs_are_one_line(tmp_path, text, message):
    (tmp_path / "asr.log").write_text(text)
    check_refused([tmp_path / "out.png", f"a={tmp_path}"], message)
    assert not (tmp_path / "out.png").exists()
    assert not (tmp_path / "out.tsv").exists()


def check_refused(arguments, message):
    with pytest.raises(SystemExit) as refused:
        curves.main([*map(str, arguments)])
    assert str(refused.value).startswith("error: ")
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["out.png", "a=/nowhere"], "/nowhere: no asr.log or model.log, expected a SAVE_DIR"),
        (["out.png", "SAVE"], "SAVE: expected NAME=SAVE_DIR"),
        (["out.png", "=SAVE"], "=SAVE: expected NAME=SAVE_DIR"),
        (["out.png", "a="], "a=: expected NAME=SAVE_DIR"),
        (["out.png", "a\tb=SAVE"], "expected NAME=SAVE_DIR"),
        (["out.png", "a=SAVE", "a=other"], "a=other: a second training named a"),
        (["out.png", *(f"{n}=SAVE" for n in range(8))], "8 trainings, expected at most 7"),
        (["out.txt", "a=SAVE"], "out.txt: expected a file name ending in .png"),
    ],
)
def test_wrong_arguments_are_one_line(saved, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    check_refused(
        [text.replace("=SAVE", f"={saved}") for text in arguments], message.split("=S")[0]
    )
    assert [path.name for path in tmp_path.iterdir()] == ["save"]


def test_a_folder_in_place_of_a_log(tmp_path):
    (tmp_path / "asr.log").mkdir()
    with pytest.raises(InputError, match=r"asr\.log: cannot be read .*expected a log"):
        read_training(tmp_path)


def test_runs_as_a_module(saved, tmp_path):
    command = [sys.executable, "-m", "examples.prompts.train.curves", tmp_path / "a.svg"]
    result = subprocess.run(
        [*command, f"all={saved}"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert read_table(tmp_path / "a.tsv")


def test_training_adds_to_its_logs_and_stops_where_it_fails(recorded, tmp_path):
    data, out = tmp_path / "data", tmp_path / "out"
    data.mkdir()
    for name in ("train", "dev"):
        (data / f"{name}.tsv").touch()
    printed = tmp_path / "printed"
    for run_number, (update, status) in enumerate(((10, 3), (20, 0)), 1):
        printed.write_text(f"{inner(update)}\n")
        write_command(
            recorded.path, "fairseq-train", f'cat "{printed}"; echo trouble >&2; exit {status}'
        )
        result = run(SCRIPT, data, out, path=recorded.path, TRAIN="train", VALID="dev")
        assert (result.returncode == 0) == (status == 0)
        assert (out / "model.log").exists() == (status == 0)
        assert result.stderr.count("trouble") == run_number
        assert inner(update) in result.stdout
    training = read_training(out)
    assert {name: [at for _, at in found] for name, found in training.items()} == {
        "asr": [10, 20],
        "model": [20],
    }
