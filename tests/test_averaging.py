import argparse
import re
import resource
import subprocess
import sys
import weakref
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoint_files import Hostile, new_folder, refused, save_checkpoint, weights
from fairseq.checkpoint_utils import load_model_ensemble
from golden import published
from hypothesis import given, settings
from hypothesis import strategies as st

from fbk_xattn import averaging
from fbk_xattn.averaging import average_checkpoints
from fbk_xattn.checkpoints import load_checkpoint
from fbk_xattn.errors import InputError

ROOT = Path(__file__).parents[1]
GOLDEN = ROOT / "tests" / "golden"


@pytest.fixture
def save(tmp_path):
    return partial(save_checkpoint, tmp_path)


def averaged(*models, legacy=False):
    """Return the mean of models, by way of files."""
    with new_folder() as folder:
        paths = [folder / f"{number}.pt" for number in range(len(models))]
        for path, model in zip(paths, models, strict=True):
            torch.save({"model": model}, path, _use_new_zipfile_serialization=not legacy)
        average_checkpoints(paths, folder / "mean.pt")
        return load_checkpoint(folder / "mean.pt")["model"]


def test_average_is_the_mean_of_the_weights(save, tmp_path):
    paths = [save(f"{seed}.pt", model=weights(seed)) for seed in (1, 2, 4)]
    average_checkpoints(paths, tmp_path / "mean.pt")
    mean = load_checkpoint(tmp_path / "mean.pt")["model"]
    parts = [weights(seed) for seed in (1, 2, 4)]
    assert mean.keys() == parts[0].keys()
    for name in ("encoder.weight", "encoder.half"):
        expected = np.mean([p[name].numpy().astype(np.float64) for p in parts], axis=0)
        assert mean[name].dtype == parts[0][name].dtype
        np.testing.assert_allclose(
            mean[name].numpy(), expected.astype(mean[name].numpy().dtype), rtol=1e-6
        )


@given(
    values=st.lists(
        st.lists(st.floats(-1e4, 1e4, width=16), min_size=4, max_size=4), min_size=1, max_size=30
    ),
    dtype=st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64]),
    legacy=st.booleans(),
)
@settings(deadline=None, max_examples=50)
def test_mean_is_that_of_double_precision(values, dtype, legacy):
    # A third of each value, so that float32 and float64 have something to round.
    models = [torch.tensor(value, dtype=torch.float64).div(3).to(dtype) for value in values]
    mean = averaged(*({"x": model} for model in models), legacy=legacy)["x"]
    expected = torch.stack(models).double().mean(0)
    assert mean.dtype == dtype
    # What the type itself rounds off at the end, and what 30 steps of the mean do.
    largest = torch.stack(models).double().abs().max().item()
    steps = torch.finfo(torch.promote_types(dtype, torch.float32)).eps * len(models) / 2
    error = (mean.double() - expected).abs().max().item()
    smallest = torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps
    assert error <= largest * (torch.finfo(dtype).eps / 2 + steps) + smallest


@given(
    values=st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=5),
    dtype=st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64]),
    n=st.integers(1, 9),
)
@settings(deadline=None, max_examples=50)
def test_mean_of_identical_checkpoints_is_each_of_them(values, dtype, n):
    """Bit by bit: infinities, the smallest numbers and the sign of zero too."""
    model = {"x": torch.tensor([*values, -0.0, float("-inf"), 0.1]).to(dtype)}
    mean = averaged(*[model] * n)["x"]
    bits = {2: torch.int16, 4: torch.int32, 8: torch.int64}[dtype.itemsize]
    assert torch.equal(mean.view(bits), model["x"].view(bits))


@given(
    values=st.lists(st.integers(-(2**58), 2**58), min_size=1, max_size=12),
    dtype=st.sampled_from([torch.uint8, torch.int16, torch.int32, torch.int64]),
)
@settings(deadline=None, max_examples=50)
def test_mean_of_whole_numbers_is_exact_and_rounded_down(values, dtype):
    models = [torch.tensor(value).to(dtype) for value in values]
    mean = averaged(*({"x": model} for model in models))["x"]
    assert mean.dtype == dtype
    assert mean.item() == sum(model.item() for model in models) // len(models)


def test_booleans_are_those_of_the_last():
    first, last = torch.tensor([True, False, True]), torch.tensor([True, True, False])
    mean = averaged({"x": first}, {"x": first}, {"x": last})["x"]
    assert mean.dtype == torch.bool
    assert mean.tolist() == last.tolist()


def test_layout_of_a_weight_does_not_matter():
    x = torch.arange(12.0).reshape(3, 4)
    mean = averaged({"x": x.T.contiguous().T}, {"x": x}, {"x": x[0].expand(3, 4)})["x"]
    torch.testing.assert_close(mean, (2 * x + x[0]) / 3)


def test_parameters_are_averaged_as_their_values():
    mean = averaged({"x": torch.nn.Parameter(torch.ones(2))}, {"x": torch.zeros(2)})["x"]
    assert not mean.requires_grad
    assert mean.tolist() == [0.5, 0.5]


def tied(seed, dtype=torch.float32):
    """Return weights of which two are one tensor and a third is the beginning of it."""
    table = weights(seed)["encoder.weight"].to(dtype)
    return {"a": table, "b": table, "start": table[:2], "c": table + 1}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.int64])
def test_tied_weights_stay_tied(dtype):
    mean = averaged(*(tied(seed, dtype) for seed in (1, 2, 4)))
    assert mean["a"].data_ptr() == mean["b"].data_ptr()
    assert len({tensor.data_ptr() for tensor in mean.values()}) == 3
    apart = averaged(*({k: v.clone() for k, v in tied(n, dtype).items()} for n in (1, 2, 4)))
    assert len({tensor.data_ptr() for tensor in apart.values()}) == 4
    for name, tensor in mean.items():
        assert torch.equal(tensor, apart[name]), name


@pytest.mark.parametrize("untied", [0, 1, 2])
def test_weights_that_one_checkpoint_does_not_tie_are_apart(untied):
    models = [tied(seed) for seed in (1, 2, 4)]
    models[untied]["b"] = models[untied]["b"] + 3
    mean = averaged(*models)
    torch.testing.assert_close(mean["b"], mean["a"] + 1)


def test_formats_have_the_same_mean(save, tmp_path):
    means = []
    for formats in ([False, False, False], [True, True, True], [True, False, True]):
        paths = [
            save(f"{seed}.pt", legacy=legacy, model=weights(seed))
            for seed, legacy in zip((1, 2, 4), formats, strict=True)
        ]
        average_checkpoints(paths, tmp_path / "mean.pt")
        means.append(load_checkpoint(tmp_path / "mean.pt")["model"])
    for name, tensor in means[0].items():
        assert all(torch.equal(mean[name], tensor) for mean in means), name


def test_integer_buffers_stay_integers(save, tmp_path):
    paths = [save(f"{seed}.pt", model=weights(seed)) for seed in (1, 2, 4)]
    average_checkpoints(paths, tmp_path / "mean.pt")
    counter = load_checkpoint(tmp_path / "mean.pt")["model"]["encoder.num_batches_tracked"]
    assert counter.dtype == torch.int64
    assert counter.item() == 23


def test_average_of_one_checkpoint_is_itself(save, tmp_path):
    average_checkpoints([save()], tmp_path / "mean.pt")
    for name, tensor in load_checkpoint(tmp_path / "mean.pt")["model"].items():
        assert torch.equal(tensor, weights(1)[name])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_rounded_once(rng, dtype):
    models = [torch.from_numpy(rng.uniform(1, 2, 1000)).to(dtype) for _ in range(25)]
    mean = averaged(*({"x": model} for model in models))["x"].double()
    exact = torch.stack(models).double().mean(0)
    assert (mean - exact).abs().max() <= 0.501 * torch.finfo(dtype).eps


def test_single_precision_loses_less_than_a_plain_sum(rng):
    """Weights that differ little, as those of the last 25 checkpoints of a training do."""
    start = rng.uniform(-1, 1, 10_000)
    models = [
        torch.from_numpy(start + 0.01 * rng.standard_normal(10_000)).float() for _ in range(25)
    ]
    mean = averaged(*({"x": model} for model in models))["x"].double()
    exact = torch.stack(models).double().mean(0)
    plain = (sum(models[1:], models[0]) / 25).double()
    assert 0 < (mean - exact).abs().mean() < (plain - exact).abs().mean()


def test_half_precision_is_averaged_in_full(save, tmp_path):
    """In half precision the sum of 40,000 and 50,000 would be infinite."""
    paths = [save(f"{value}.pt", model={"x": torch.tensor([value]).half()}) for value in (4e4, 5e4)]
    average_checkpoints(paths, tmp_path / "mean.pt")
    assert load_checkpoint(tmp_path / "mean.pt")["model"]["x"].item() == pytest.approx(4.5e4, 1e-3)


def test_average_has_the_flags_of_the_last_and_no_optimizer_state(save, tmp_path):
    paths = [
        save(f"{n}.pt", args=argparse.Namespace(n=n), last_optimizer_state={"n": n})
        for n in range(2)
    ]
    average_checkpoints(paths, tmp_path / "mean.pt")
    checkpoint = load_checkpoint(tmp_path / "mean.pt")
    assert checkpoint["args"].n == 1
    assert checkpoint["last_optimizer_state"] is None


def test_average_of_published_checkpoints_is_read_again(tmp_path):
    """Omegaconf pickles its containers otherwise than the version that wrote them."""
    published, once, twice = GOLDEN / "checkpoint_joint.pt", tmp_path / "1.pt", tmp_path / "2.pt"
    average_checkpoints([published, published], once)
    average_checkpoints([once, published], twice)
    expected, read = load_checkpoint(published), load_checkpoint(twice)
    assert read["cfg"] == expected["cfg"]
    assert read["cfg"].model == expected["cfg"].model
    for name, tensor in expected["model"].items():
        torch.testing.assert_close(read["model"][name], tensor, msg=name)


def test_average_of_published_checkpoints_is_the_published_model(tmp_path):
    average_checkpoints([published.CHECKPOINT] * 3, tmp_path / "mean.pt")
    overrides = {"data": str(published.FOLDER / "data"), "config_yaml": "config.yaml"}
    (model,), _ = load_model_ensemble([str(tmp_path / "mean.pt")], overrides)
    expected = published.load()[0].state_dict()
    assert model.state_dict().keys() == expected.keys()
    assert all(torch.equal(tensor, expected[k]) for k, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"more": torch.zeros(1)}, "has a weight more, expected the same as"),
        ({"encoder.half": None}, "has no weight encoder.half, expected the same as"),
        (
            {"encoder.weight": torch.zeros(2, 4)},
            "shape of encoder.weight is (2, 4), expected (3, 4) as",
        ),
        (
            {"encoder.num_batches_tracked": torch.zeros(1).long()},
            "shape of encoder.num_batches_tracked is (1,), expected () as",
        ),
        (
            {"encoder.half": torch.zeros(5)},
            "type of encoder.half is torch.float32, expected torch.float16 as",
        ),
    ],
)
@pytest.mark.parametrize("place", [1, 2])
def test_checkpoints_of_two_models_are_refused(save, tmp_path, other, said, place):
    model = {k: v for k, v in {**weights(2), **other}.items() if v is not None}
    paths = [save("0.pt"), save("1.pt"), save("2.pt")]
    save(f"{place}.pt", model=model)
    message = refused(average_checkpoints, paths, tmp_path / "mean.pt")
    assert message == f"{paths[place]}: {said} in {paths[0]}"
    assert not (tmp_path / "mean.pt").exists()


def test_order_of_the_weights_does_not_matter(save, tmp_path):
    backwards = dict(reversed(weights(3).items()))
    average_checkpoints([save("1.pt"), save("3.pt", model=backwards)], tmp_path / "mean.pt")
    mean = load_checkpoint(tmp_path / "mean.pt")["model"]
    expected = (weights(1)["encoder.weight"] + weights(3)["encoder.weight"]) / 2
    torch.testing.assert_close(mean["encoder.weight"], expected)


@pytest.mark.parametrize("weight", [3, None, [torch.zeros(1)], torch.eye(2).to_sparse()])
def test_what_is_no_dense_weight_is_refused(save, tmp_path, weight):
    path = save(model={"x": torch.zeros(1), "y": weight})
    message = refused(average_checkpoints, [path], tmp_path / "mean.pt")
    assert message == f"{path}: y in its entry 'model' is not a dense tensor, expected only those"


@pytest.mark.parametrize("legacy", [False, True])
def test_average_runs_no_code_of_a_checkpoint(save, tmp_path, legacy):
    marker, output = tmp_path / "ran", tmp_path / "mean.pt"
    hostile = save("hostile.pt", legacy=legacy, extra_state=Hostile(marker))
    message = refused(average_checkpoints, [save("1.pt"), hostile], output)
    assert message.startswith(f"{hostile}: unreadable checkpoint (it holds ")
    assert not marker.exists()
    assert not output.exists()


@pytest.mark.parametrize("legacy", [False, True])
def test_nothing_of_a_checkpoint_is_held_when_the_next_is_read(save, tmp_path, monkeypatch, legacy):
    paths = [
        save(
            f"{seed}.pt",
            legacy=legacy,
            model=weights(seed),
            last_optimizer_state={"state": {0: {"exp_avg": torch.zeros(50)}}},
        )
        for seed in range(5)
    ]
    loaded, alive = [], []

    def load(path, peek=False):
        alive.append(sum(tensor() is not None for tensor in loaded))
        alive.append(len(re.findall(rf"{tmp_path}/\d\.pt", Path("/proc/self/maps").read_text())))
        checkpoint = load_checkpoint(path, peek)
        optimizer = checkpoint["last_optimizer_state"]["state"][0].values()
        loaded.extend(weakref.ref(t) for t in (*checkpoint["model"].values(), *optimizer))
        return checkpoint

    monkeypatch.setattr(averaging, "load_checkpoint", load)
    average_checkpoints(paths, tmp_path / "mean.pt")
    assert len(loaded) == 5 * 4
    assert alive == [0] * 2 * 5


# Averages its inputs in a process of its own, whose memory no other test has left its traces in,
# and prints by how many MB the most that was resident exceeds what was before.
MEASURE = """
import re, sys
from pathlib import Path
from fbk_xattn.averaging import average_checkpoints

def memory(which):
    status = Path("/proc/self/status").read_text()
    return int(re.search(rf"{which}:\\s+(\\d+) kB", status)[1]) * 1024 / 1e6

small, output, *paths = sys.argv[1:]
average_checkpoints([small, small], output)  # what the first call of anything takes
Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
before = memory("VmRSS")
average_checkpoints(paths, output)
print(memory("VmHWM") - before)
"""


def test_memory_holds_two_checkpoints_at_most_and_no_optimizer_state(save, tmp_path):
    layer = 500_000  # 2 MB each
    small = save("small.pt", last_optimizer_state={"exp_avg": torch.zeros(9)})
    paths = [
        save(
            f"{n}.pt",
            model={f"layer{k}": torch.full((layer,), 1.0 + n) for k in range(20)},
            last_optimizer_state={"exp_avg": torch.zeros(20 * layer)},
        )
        for n in range(4)
    ]
    result = subprocess.run(
        [sys.executable, "-c", MEASURE, small, tmp_path / "mean.pt", *paths],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if "clear_refs" in result.stderr:
        pytest.skip("this kernel does not tell the peak of memory")
    # Two are 80 MB. A third one, a sum in float64 or an optimizer state would make it 120.
    assert 70 < float(result.stdout) < 95, result.stderr
    mean = load_checkpoint(tmp_path / "mean.pt")
    assert all((tensor == 2.5).all() for tensor in mean["model"].values())
    assert (tmp_path / "mean.pt").stat().st_size < 41e6


def test_failed_average_leaves_the_old_file_alone(save, tmp_path):
    output = save("mean.pt", model={"x": torch.ones(1)})
    with pytest.raises(InputError, match=r"b\.pt: no such checkpoint"):
        average_checkpoints([save("a.pt"), tmp_path / "b.pt"], output)

    size = output.stat().st_size
    large = save("a.pt", model={"x": torch.zeros(10**6)})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10**6, limits[1]))
    try:
        message = refused(average_checkpoints, [large], output)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert message == (f"{output}: cannot be written (File too large), expected a writable place")
    assert output.stat().st_size == size
    assert load_checkpoint(output)["model"]["x"].item() == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.pt", "mean.pt"]


def test_the_folder_of_the_output_is_made(save, tmp_path):
    average_checkpoints([save()], tmp_path / "new" / "mean.pt")
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["mean.pt"]


def test_an_output_that_is_a_folder_is_refused(save, tmp_path):
    message = refused(average_checkpoints, [save()], tmp_path)
    assert message == f"{tmp_path}: is a folder, expected the name of a file"


@pytest.mark.parametrize("name", ["2.pt", "folder/../2.pt", "link.pt"])
def test_output_may_not_be_one_of_the_inputs(save, tmp_path, name):
    paths = [save(f"{seed}.pt", model=weights(seed)) for seed in (1, 2, 3)]
    (tmp_path / "folder").mkdir()
    (tmp_path / "link.pt").symlink_to(paths[1])
    message = refused(average_checkpoints, paths, tmp_path / name)
    assert message == (
        f"{tmp_path / name}: is one of the checkpoints to average, expected another file"
    )
    kept = load_checkpoint(paths[1])["model"]["encoder.weight"]
    assert torch.equal(kept, weights(2)["encoder.weight"])
