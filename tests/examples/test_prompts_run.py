"""``examples/prompts/run.sh`` says what it lacks at once, and keeps its two models apart."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest

RUN = Path(__file__).parents[2] / "examples" / "prompts" / "run.sh"
PARTS = (b"a", b" model")
# What the commands leave of what run.sh goes by; each writes its arguments into a line of "calls".
COMMANDS = {
    "fbk-xattn": """
        case "$1" in
            prompts)
                mkdir -p "$5"
                printf 'id\\naudio\\n' > "$5/test_asr_en.tsv"
                printf 'id\\nasr-en/one\\nasr-en/two\\n' > "$5/test_st_it_en.tsv" ;;
            prepare) mkdir -p "$3"; cp "$2"/*.tsv "$3"; echo "${@:4}" > "$3/config.yaml" ;;
            average-checkpoints) echo "${*: -1}" > "${@: -1}" ;;
        esac""",
    "fairseq-train": """
        while [ "$1" != --save-dir ]; do shift; done
        mkdir -p "$2"
        touch "$2/checkpoint1.pt" """,
    "fairseq-generate": "",
}


def run(*flags, path=None, script=RUN, cwd=None):
    environment = {**os.environ, **({"PATH": str(path)} if path else {})}
    return subprocess.run(
        [shutil.which("bash"), script, *map(str, flags)],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
        cwd=cwd,
    )


@pytest.fixture
def checkout(tmp_path):
    """A checkout with a model of a few bytes, and commands that write down how they were called."""
    prompts = tmp_path / "checkout" / "examples" / "prompts"
    ship(prompts / "model", PARTS)
    shutil.copy(RUN, prompts)
    (prompts / "explained.txt").write_text("asr-en/two\n")
    scripts = tmp_path / "checkout" / "scripts"
    scripts.mkdir()
    (scripts / "venv.sh").touch()
    (tmp_path / "bin").mkdir()
    for name, lines in COMMANDS.items():
        call = f'echo "{name} $*" >> {tmp_path}/calls'
        command = tmp_path / "bin" / name
        command.write_text(f"#!/usr/bin/env bash\n{call}\n{lines}\n")
        command.chmod(0o755)
    return tmp_path


def ship(folder, parts):
    folder.mkdir(parents=True, exist_ok=True)
    for number, part in enumerate(parts, 1):
        (folder / f"model.pt.{number}").write_bytes(part)
    digest = hashlib.sha256(b"".join(parts)).hexdigest()
    (folder / "SHA256SUMS").write_text(f"{digest}  model.pt\n")


def run_model(checkout, *flags):
    """Run the example of a checkout with its model, which it does by itself."""
    return run_in(checkout, *flags)


def run_in(checkout, *flags):
    """Run the example of a checkout; return the result and the calls, without its folder."""
    calls = checkout / "calls"
    calls.write_text("")
    result = run(
        *("--audio-dir", checkout, "--work-dir", checkout / "work", *flags),
        path=f"{checkout / 'bin'}:{os.environ['PATH']}",
        script=checkout / "checkout" / "examples" / "prompts" / "run.sh",
    )
    return result, calls.read_text().replace(f"{checkout}/", "").splitlines()


def value(call, flag):
    """Return what follows a flag."""
    words = call.split()
    return words[words.index(flag) + 1]


def test_the_shipped_model_is_joined_and_explained(checkout):
    result, calls = run_model(checkout)
    assert result.returncode == 0, result.stderr
    run_folder = checkout / "work" / "shipped"
    assert (run_folder / "model.pt").read_bytes() == b"".join(PARTS)
    assert calls[1] == (
        "fbk-xattn prepare work/corpus work/shipped/data --vocabulary examples/prompts/model"
    )
    explained = (run_folder / "data" / "explained.tsv").read_text()
    assert explained == "id\nasr-en/two\n"
    (generate,) = [call for call in calls if call.startswith("fairseq-")]
    assert generate.startswith("fairseq-generate work/shipped/data ")
    assert value(generate, "--path") == "work/shipped/model.pt"
    assert value(generate, "--attribution-dir") == "work/shipped/attributions"
    assert value(generate, "--num-masks") == "1000"
    assert calls[-1].startswith("fbk-xattn report work/shipped/attributions ")


def test_folders_are_relative_to_where_the_user_is(checkout):
    here = checkout / "here"
    (here / "sounds").mkdir(parents=True)
    ship(here / "model", PARTS)
    result = run(
        *("--audio-dir", "sounds", "--work-dir", "work", "--model", "model"),
        path=f"{checkout / 'bin'}:{os.environ['PATH']}",
        script="../checkout/examples/prompts/run.sh",
        cwd=here,
    )
    assert result.returncode == 0, result.stderr
    prompts, prepare, *_ = (checkout / "calls").read_text().splitlines()
    assert value(prompts, "--audio-dir") == f"{here}/sounds"
    assert value(prepare, "--vocabulary") == f"{here}/model"
    assert (here / "work" / "shipped" / "model.pt").read_bytes() == b"".join(PARTS)
    help_text = run("--help", script="../checkout/examples/prompts/run.sh", cwd=here)
    assert "--work-dir DIR" in help_text.stdout


def test_the_two_models_share_the_corpus_and_nothing_else(checkout):
    run_model(checkout)
    before = contents(checkout / "work" / "shipped")
    result, calls = run_in(checkout, "--train", "--minutes", "3", "--num-masks", "5")
    assert result.returncode == 0, result.stderr
    assert "prompts" not in [call.split()[1] for call in calls]
    assert calls[0] == "fbk-xattn prepare work/corpus work/trained/data --vocabulary-size 200"
    first, second = [call for call in calls if call.startswith("fairseq-train ")]
    assert value(first, "--save-dir") == "work/trained/asr"
    assert float(value(first, "--stop-time-hours")) == pytest.approx(3 / 60 * 0.66, rel=1e-4)
    assert value(second, "--save-dir") == "work/trained/model"
    assert float(value(second, "--stop-time-hours")) == pytest.approx(3 / 60)
    assert value(second, "--finetune-from-model") == "work/trained/asr.pt"
    (generate,) = [call for call in calls if call.startswith("fairseq-generate ")]
    assert value(generate, "--path") == "work/trained/model.pt"
    assert value(generate, "--num-masks") == "5"
    assert not [call for call in calls if "shipped" in call]
    assert contents(checkout / "work" / "shipped") == before

    result, calls = run_model(checkout)
    assert result.returncode == 0, result.stderr
    assert not [call for call in calls if "trained" in call or "prepare" in call]
    assert contents(checkout / "work" / "shipped") == before


def contents(folder):
    return {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_training_needs_no_shipped_model_and_is_not_done_again(checkout):
    shutil.rmtree(checkout / "checkout" / "examples" / "prompts" / "model")
    run_in(checkout, "--train")
    result, calls = run_in(checkout, "--train")
    assert result.returncode == 0, result.stderr
    assert {call.split()[0] for call in calls} == {"fbk-xattn", "fairseq-generate"}
    assert {call.split()[1] for call in calls} & {
        "prompts",
        "prepare",
        "average-checkpoints",
    } == set()


def damage_nothing_left(model):
    shutil.rmtree(model)


def damage_part_missing(model):
    (model / "model.pt.2").unlink()


def damage_part_differs(model):
    (model / "model.pt.1").write_bytes(b"b")


def damage_no_checksum(model):
    (model / "SHA256SUMS").unlink()


@pytest.mark.parametrize(
    "damage", [damage_nothing_left, damage_part_missing, damage_part_differs, damage_no_checksum]
)
def test_a_damaged_model_is_refused(damage, checkout):
    damage(checkout / "checkout" / "examples" / "prompts" / "model")
    result, calls = run_model(checkout)
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: examples/prompts/model/model.pt.")
    assert "missing or differs" in line
    assert calls == []
    assert not (checkout / "work" / "shipped" / "model.pt").exists()


def test_another_model_can_be_given(checkout):
    ship(checkout / "other", (b"other ", b"parts"))
    result, calls = run_model(checkout, "--model", checkout / "other")
    assert result.returncode == 0, result.stderr
    assert (checkout / "work" / "shipped" / "model.pt").read_bytes() == b"other parts"
    assert value(calls[1], "--vocabulary") == "other"


def test_results_of_another_shipped_model_are_refused(checkout):
    run_model(checkout)
    ship(checkout / "checkout" / "examples" / "prompts" / "model", (b"another", b" model"))
    result, calls = run_model(checkout)
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert f"{checkout}/work/shipped: is of another model" in line
    assert calls == []


def test_without_apt_get_it_asks_for_a_folder(tmp_path, checkout):
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("cat", "dirname", "mkdir", "mv", "date", "nproc", "sed", "rm", "sha256sum"):
        (tools / name).symlink_to(shutil.which(name))
    script = checkout / "checkout" / "examples" / "prompts" / "run.sh"
    result = run("--work-dir", tmp_path / "work", path=tools, script=script)
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert "no apt-get here" in line
    assert "asterisk-core-sounds-it-g722" in line
    assert "--audio-dir" in line


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--audio-dir", "/no/such/folder"], "--audio-dir /no/such/folder: no such folder"),
        (["--masks", "3"], "unknown argument --masks"),
        (["--minutes", "3"], "--minutes 3: expected with --train only"),
        (["--train", "--model", "x"], "--model x: expected without --train, which makes a model"),
    ],
)
def test_wrong_arguments_are_named(flags, message):
    result = run(*flags)
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert message in line


def test_help_lists_the_arguments():
    result = run("--help")
    assert result.returncode == 0
    for flag in ("--audio-dir", "--work-dir", "--num-masks", "--minutes", "--model", "--train"):
        assert flag in result.stdout
    assert result.stdout.startswith("From nothing")
    assert result.stdout.endswith("folder trained.\n")
