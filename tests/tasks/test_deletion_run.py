"""``fairseq-generate --deletion`` and ``--insertion``, on the published model."""

from __future__ import annotations

import json
import logging

import numpy as np
import pytest
from fairseq.sequence_generator import SequenceGenerator
from fairseq_runs import run_generate
from golden import published

from fbk_xattn.analysis.ranking import RANKING_MAPS, Ranking, ascending, removed
from fbk_xattn.errors import InputError
from fbk_xattn.store import AttributionStore, CurveStore

DATA = published.FOLDER / "data"
DECODING = ("--beam", "5", "--no-repeat-ngram-size", "5", "--max-len-b", "200")
LIMIT = ("--max-tokens", "40000")
COARSE = ("--deletion-step", "50")


def generate(*flags):
    return run_generate(DATA, published.CHECKPOINT, *DECODING, *LIMIT, *flags)


@pytest.fixture(scope="module")
def maps(tmp_path_factory):
    """The store that the utterances are ranked by."""
    store = tmp_path_factory.mktemp("maps")
    flags = ("--save-cross-attention", "--explain", "input", "encoder", "--num-masks", "6")
    generate("--attribution-dir", store, *flags)
    return store


@pytest.fixture(scope="module")
def deleted(maps, tmp_path_factory):
    """A folder of deletion by the input map, and what the command printed."""
    folder = tmp_path_factory.mktemp("deletion")
    return folder, generate("--attribution-dir", maps, "--deletion", folder, *COARSE)


def files(folder):
    return {path.name: path.read_bytes() for path in folder.glob("*.npz")}


def texts(folder):
    with CurveStore.open(folder) as store:
        return {curve.id: [step.hypothesis for step in curve.steps] for curve in store}


def hypotheses(lines):
    return [line for line in lines if line[:2] in ("T-", "H-", "D-")]


@pytest.mark.parametrize(
    ("mode", "name"),
    [
        *(("deletion", name) for name in RANKING_MAPS),
        ("insertion", "input"),
        ("insertion", "encoder"),
    ],
)
def test_the_end_that_removes_nothing_is_plain_decoding(maps, tmp_path, mode, name):
    flags = (f"--{mode}", tmp_path, "--deletion-map", name, *COARSE)
    generate("--attribution-dir", maps, *flags)
    golden = published.values("hyps_joint")
    ids = published.load()[1].datasets["test"].ids
    with CurveStore.open(tmp_path) as store, AttributionStore.open(maps) as attributions:
        assert sorted(store.ids()) == sorted(ids)
        assert (store.mode, store.map_name) == (mode, name)
        for number, utterance_id in enumerate(ids):
            curve = store.read(utterance_id)
            plain = curve.steps[0 if mode == "deletion" else -1]
            expected = golden["single"][str(number)]
            assert plain.token_ids.tolist() == expected["tokens"]
            assert plain.score == pytest.approx(expected["score"], abs=1e-4)
            assert plain.hypothesis == attributions.texts(utterance_id)["hypothesis"]
            assert curve.percentages.tolist() == [0, 50, 100]
            assert curve.n_removed[[0, -1]].tolist()[:: 1 if mode == "deletion" else -1] == [
                0, curve.n_units,
            ]  # fmt: skip


def test_every_step_is_what_decoding_of_its_input_alone_gives(maps, deleted):
    """Against a plain loop: one utterance, one step, one pass."""
    model, task, _ = published.load()
    generator = SequenceGenerator(
        [model], task.target_dictionary, beam_size=5, no_repeat_ngram_size=5, max_len_b=200
    )
    number = 2
    batch = published.batch(number)
    name = task.datasets["test"].ids[number]
    ranked = Ranking("input").sentence_map(AttributionStore.open(maps).read(name))
    masks = removed(ascending(ranked), [0, 50, 100], "deletion").reshape(-1, *ranked.shape)
    curve = CurveStore.open(deleted[0]).read(name)
    for mask, step in zip(masks, curve.steps, strict=True):
        net_input = dict(batch["net_input"])
        features = net_input["src_tokens"].clone()
        features[0, mask] = 0
        sample = {"net_input": {**net_input, "src_tokens": features}}
        prefix = batch["target"][:, :1]
        (beams,) = generator.generate([model], sample, prefix_tokens=prefix)
        assert step.token_ids.tolist() == beams[0]["tokens"].tolist()
        assert step.score == pytest.approx(float(beams[0]["score"]), abs=1e-4)
    assert len({step.hypothesis for step in curve.steps}) > 1


def test_the_parameters_are_recorded(maps, deleted):
    parameters = json.loads((deleted[0] / "meta.json").read_text())["parameters"]
    theirs = json.loads((maps / "meta.json").read_text())["parameters"]
    assert parameters["mode"] == "deletion"
    assert parameters["--deletion-map"] == "input"
    assert parameters["--deletion-step"] == 50
    assert parameters["--beam"] == 5
    assert parameters["--num-masks of the maps"] == theirs["--num-masks"] == 6
    assert "--deletion-layers" not in parameters


def test_what_is_printed_is_plain_decoding(deleted):
    assert hypotheses(deleted[1]) == hypotheses(generate())


def test_again_repeats_no_work_and_prints_the_same(maps, deleted, monkeypatch):
    folder, lines = deleted
    before = files(folder)

    def refuse(*_, **__):
        raise AssertionError("beam search ran although everything is there")

    monkeypatch.setattr(SequenceGenerator, "generate", refuse)
    again = generate("--attribution-dir", maps, "--deletion", folder, *COARSE)
    assert hypotheses(again) == hypotheses(lines)
    assert files(folder) == before


def test_processes_share_a_folder_and_go_on_with_what_is_there(maps, deleted, tmp_path):
    whole = files(deleted[0])
    first = min(whole)
    for name in (first, "meta.json"):
        (tmp_path / name).write_bytes((deleted[0] / name).read_bytes())
    for rank in (0, 1):
        shard = ("--distributed-world-size", "2", "--distributed-rank", rank)
        generate("--attribution-dir", maps, "--deletion", tmp_path, *COARSE, *shard)
    assert texts(tmp_path) == texts(deleted[0])
    assert files(tmp_path)[first] == whole[first]


def test_steps_run_in_ordinary_batches(maps, tmp_path, monkeypatch):
    sizes = []
    generate_batch = SequenceGenerator.generate

    def count(self, models, sample, **kwargs):
        features = sample["net_input"]["src_tokens"]
        sizes.append(features.shape[:2])
        return generate_batch(self, models, sample, **kwargs)

    monkeypatch.setattr(SequenceGenerator, "generate", count)
    generate("--attribution-dir", maps, "--deletion", tmp_path, "--deletion-step", "20", *LIMIT)
    assert sum(size for size, _ in sizes) == 6 * 6
    assert len(sizes) <= 2
    assert all(size * frames <= 40_000 for size, frames in sizes)


@pytest.mark.parametrize("name", ["input", "encoder"])
def test_batches_change_nothing(maps, tmp_path, name):
    flags = ("--attribution-dir", maps, "--deletion-map", name, *COARSE)
    generate(*flags, "--deletion", tmp_path / "large")
    generate(*flags, "--deletion", tmp_path / "small", "--batch-size", "4", "--max-tokens", "2000")
    assert texts(tmp_path / "large") == texts(tmp_path / "small")


def test_heads_are_chosen(maps, tmp_path):
    flags = ("--attribution-dir", maps, "--deletion-map", "cross-attention", *COARSE)
    one_head = ("--deletion-layers", "3", "1", "--deletion-heads", "2")
    generate(*flags, "--deletion", tmp_path, *one_head)
    parameters = json.loads((tmp_path / "meta.json").read_text())["parameters"]
    assert parameters["--deletion-layers"] == [1, 3]
    assert parameters["--deletion-heads"] == [2]
    with pytest.raises(InputError, match=r"has --deletion-heads = \[2\], this run has None"):
        generate(*flags, "--deletion", tmp_path, "--deletion-layers", "1", "3")


def test_a_folder_of_other_parameters_is_refused_and_kept(maps, deleted, tmp_path):
    folder = deleted[0]
    before = files(folder)
    flags = ("--attribution-dir", maps, *COARSE)
    for more, said in (
        (("--insertion", folder), "has mode = deletion, this run has insertion"),
        (("--deletion", folder, "--deletion-map", "encoder"), "--deletion-map = input"),
        (("--deletion", folder, "--beam", "4"), "--beam = 5, this run has 4"),
    ):
        with pytest.raises(InputError, match=said):
            generate(*flags, *more)
    generate("--attribution-dir", tmp_path, "--explain", "input", "--num-masks", "2")
    with pytest.raises(InputError, match="of the maps = "):
        generate("--attribution-dir", tmp_path, "--deletion", folder, *COARSE)
    assert files(folder) == before


def test_utterances_without_maps_fail_and_the_others_are_done(maps, deleted, tmp_path, caplog):
    some = tmp_path / "some"
    some.mkdir()
    for file in maps.iterdir():
        if "nomore" not in file.name:
            (some / file.name).write_bytes(file.read_bytes())
    with caplog.at_level(logging.ERROR), pytest.raises(SystemExit) as stopped:
        generate("--attribution-dir", some, "--deletion", tmp_path / "out", *COARSE)
    assert "1 of 6 utterances failed, first 'en-vm-nomore': " in str(stopped.value)
    assert "no utterance 'en-vm-nomore' among its 5" in str(stopped.value)
    expected = {name: value for name, value in texts(deleted[0]).items() if "nomore" not in name}
    assert texts(tmp_path / "out") == expected


def test_a_damaged_map_fails_alone(maps, deleted, tmp_path):
    broken = tmp_path / "maps"
    broken.mkdir()
    for file in maps.iterdir():
        content = file.read_bytes()
        (broken / file.name).write_bytes(content[:99] if "demo-nogo" in file.name else content)
    with pytest.raises(SystemExit, match=r"1 of 6 utterances failed.*unreadable"):
        generate("--attribution-dir", broken, "--deletion", tmp_path / "out", *COARSE)
    assert set(texts(deleted[0])) - set(texts(tmp_path / "out")) == {"en-demo-nogo"}


def test_maps_of_another_model_are_refused(maps, tmp_path):
    other = tmp_path / "maps"
    other.mkdir()
    meta = json.loads((maps / "meta.json").read_text())
    meta["parameters"]["checkpoint SHA-256"] = "0" * 64
    (other / "meta.json").write_text(json.dumps(meta))
    with pytest.raises(InputError, match=r"has checkpoint SHA-256 = 000.*maps of the same model"):
        generate("--attribution-dir", other, "--deletion", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_store_without_the_map_names_the_flag_that_saves_it(tmp_path):
    generate("--attribution-dir", tmp_path / "bare")
    for name, flag in (
        ("input", "--explain input"),
        ("input-frames", "--explain input"),
        ("encoder", "--explain encoder"),
        ("cross-attention", "--save-cross-attention"),
    ):
        flags = ("--deletion", tmp_path / "out", "--deletion-map", name)
        with pytest.raises(InputError, match=f"saved without .* fairseq-generate with {flag}"):
            generate("--attribution-dir", tmp_path / "bare", *flags)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--deletion", "x"], "--deletion without --attribution-dir"),
        (["--deletion", "x", "--insertion", "y"], "--deletion with --insertion"),
        (["--insertion", "x", "--attribution-dir", "x"], "--insertion x: is --attribution-dir"),
        (
            ["--deletion", "x", "--attribution-dir", "y", "--explain", "input"],
            "--explain with --deletion",
        ),
        (
            ["--deletion", "x", "--attribution-dir", "y", "--deletion-map", "frames"],
            "--deletion-map frames: expected one of input, input-frames, cross-attention, encoder, "
            "random, random-frames, random-encoder",
        ),
        (
            ["--deletion", "x", "--attribution-dir", "y", "--deletion-seed", "-1"],
            "--deletion-seed -1: expected 0 or more",
        ),
        (
            ["--deletion", "x", "--attribution-dir", "y", "--deletion-step", "3"],
            "--deletion-step 3: expected a divisor of 100",
        ),
        (
            ["--deletion", "x", "--attribution-dir", "y", "--deletion-layers", "1"],
            "--deletion-layers with --deletion-map input",
        ),
        (
            ["--deletion", "x", "--attribution-dir", "y", "--deletion-map", "cross-attention",
             "--deletion-heads", "0"],
            "--deletion-heads 0: expected different numbers from 1",
        ),
        (
            ["--attribution-dir", "x", "--deletion", "y", "--deletion-seed", "5"],
            "--deletion-seed 5 with --deletion-map input: expected --deletion-map random",
        ),
        (
            ["--attribution-dir", "x", "--deletion", "y", "--deletion-aggregation", "2d-avg"],
            "--deletion-aggregation 2d-avg with --deletion-map input: expected .* input-frames",
        ),
        (
            ["--deletion", "x", "--attribution-dir", "y", "--deletion-aggregation", "3d"],
            "--deletion-aggregation 3d: expected one of 2d-max",
        ),
        (["--deletion", "x", "--attribution-dir", "y"], "y: not an attribution store"),
    ],
)  # fmt: skip
def test_wrong_flags_are_named(tmp_path, monkeypatch, flags, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message):
        generate(*flags)
    assert not list(tmp_path.iterdir())


def test_a_layer_that_is_not_there_fails_the_run(maps, tmp_path):
    flags = ("--deletion-map", "cross-attention", "--deletion-layers", "9", *COARSE)
    with pytest.raises(SystemExit, match=r"6 of 6 utterances failed.*no layer 9"):
        generate("--attribution-dir", maps, "--deletion", tmp_path, *flags)
    assert not list(tmp_path.glob("*.npz"))


def test_units_are_counted(deleted):
    for curve in CurveStore.open(deleted[0]):
        n = curve.n_units
        np.testing.assert_array_equal(curve.n_removed, [0, n * 50 // 100, n])
        assert n % 80 == 0


def test_random_maps_need_no_explanation_and_record_their_seed(tmp_path):
    generate("--attribution-dir", tmp_path / "texts")
    out = tmp_path / "out"
    flags = ("--deletion-map", "random-frames", "--deletion-seed", "3", *COARSE)
    generate("--attribution-dir", tmp_path / "texts", "--deletion", out, *flags)
    with CurveStore.open(out) as store:
        assert store.meta["parameters"]["--deletion-seed"] == 3
        assert len(store) == len(AttributionStore.open(tmp_path / "texts"))
