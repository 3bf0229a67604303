from pathlib import Path

import numpy as np
import pytest

from fbk_xattn.analysis import normalize
from fbk_xattn.errors import InputError

GOLDEN = Path(__file__).parents[1] / "golden" / "normalizers.npz"
CASES = ("random", "tgt_zero", "one_row_constant", "one_row_zero_tgt_zero")
CHAINS = ("single_mean_std", "paired_min_max", "single_mean_std+paired_min_max")


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN) as file:
        return {name: file[name] for name in file.files}


def inputs(golden, case):
    fbank, tokens = golden["fbank"].copy(), golden["tgt"].copy()
    if case.startswith("one_row"):
        fbank[2] = 0.5 if case == "one_row_constant" else 0.0
    if case.endswith("tgt_zero"):
        tokens[:] = 0
    return fbank, tokens


@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize("case", CASES)
def test_equal_to_the_published_values(golden, case, chain):
    maps = inputs(golden, case)
    rows = normalize(*maps, chain.split("+"))
    mean = normalize(*maps, [*chain.split("+"), "sentence"])
    for prefix, pair in (("", rows), ("agg_", mean)):
        name = f"{case}/{chain}/{prefix}"
        np.testing.assert_allclose(pair.saliency[:, ::8, ::8], golden[f"{name}fbank"], atol=2e-6)
        np.testing.assert_allclose(pair.token_saliency, golden[f"{name}tgt"], atol=2e-6)


def test_paired_min_max_ranges_over_both_maps_and_the_causal_part_alone():
    saliency = np.array([[1.0, 3.0], [2.0, 4.0]])
    tokens = np.array([[5.0, 99.0], [0.0, 2.0]])
    pair = normalize(saliency, tokens, ["paired_min_max"])
    assert pair.saliency.tolist() == [[0, 0.5], [0.5, 1]]
    assert pair.token_saliency.tolist() == [[1, 0], [0, 0.5]]


def test_without_previous_tokens_their_map_is_zero():
    pair = normalize(np.array([[1.0, 3.0]]), chain=["paired_min_max"])
    np.testing.assert_allclose(pair.saliency, [[1 / 3, 1]])


@pytest.mark.parametrize(
    ("chain", "message"),
    [
        (["min_max"], "'min_max': expected one of single_mean_std, paired_min_max, sentence"),
        (["sentence", "paired_min_max"], "'paired_min_max' after 'sentence'"),
    ],
)
def test_wrong_chains(chain, message):
    with pytest.raises(InputError, match=message):
        normalize(np.ones((2, 3)), chain=chain)


@pytest.mark.parametrize("shapes", [((2, 3), (3, 3)), ((0, 3), (0, 0)), ((2, 0), (2, 2))])
def test_wrong_shapes(shapes):
    with pytest.raises(ValueError, match="shapes"):
        normalize(*(np.ones(shape) for shape in shapes))
