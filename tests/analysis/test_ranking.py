import numpy as np
import pytest
from golden import published
from hypothesis import given
from hypothesis import strategies as st
from synthetic import as_segments, make_attribution

from fbk_xattn.analysis.ranking import RANKING_MAPS, Ranking, ascending, removed, sentence_mean
from fbk_xattn.errors import InputError

PERCENTAGES = np.arange(0, 101, 5)


def test_the_sentence_map_is_that_of_the_published_system():
    golden = published.arrays("deletion")["sentence_map"]
    np.testing.assert_allclose(sentence_mean(published.saliency(1)), golden, atol=2e-7)


def test_the_order_is_that_of_the_published_system_but_for_ties():
    golden = published.arrays("deletion")
    ranked = sentence_mean(published.saliency(1)).ravel()
    in_their_order = ranked[golden["ordered_indices"]]
    # They compute in single precision: maps that differ by less are equal there.
    assert np.diff(in_their_order).min() > -1e-7
    np.testing.assert_allclose(ranked[ascending(ranked)], in_their_order, atol=2e-7)


@pytest.mark.parametrize("mode", ["deletion", "insertion"])
def test_what_is_removed_is_what_the_published_system_removes(mode):
    golden = published.arrays("deletion")
    order = golden["ordered_indices"].astype(np.int64)
    ours = removed(order, PERCENTAGES, mode)
    theirs = np.unpackbits(golden[mode]).reshape(21, -1).astype(bool)
    np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(ours.sum(axis=1), golden[f"{mode}_n_zeroed"])


def test_the_whole_ranking_of_an_utterance_is_that_of_the_published_system(rng):
    dense = published.saliency(1)
    S, T, F = dense.shape
    attribution = make_attribution(rng, S=S, T=T, F=F, input_saliency=as_segments(dense))
    ranked = Ranking("input").sentence_map(attribution)
    np.testing.assert_allclose(ranked, published.arrays("deletion")["sentence_map"], atol=2e-7)


@given(st.integers(1, 90), st.sampled_from(["deletion", "insertion"]), st.integers(0, 2**32 - 1))
def test_removal_against_a_plain_loop(K, mode, seed):
    order = np.random.default_rng(seed).permutation(K)
    for row, p in zip(removed(order, PERCENTAGES, mode), PERCENTAGES, strict=True):
        last = set(order[K - int(K * p / 100) :].tolist())
        for unit in range(K):
            assert row[unit] == ((unit in last) == (mode == "deletion"))


def test_nothing_is_removed_at_one_end_and_everything_at_the_other():
    order = np.arange(7)[::-1]
    deletion, insertion = (removed(order, [0, 100], mode) for mode in ("deletion", "insertion"))
    assert not deletion[0].any()
    assert deletion[1].all()
    np.testing.assert_array_equal(insertion, deletion[::-1])


def test_an_unknown_mode_is_named():
    with pytest.raises(InputError, match="mode 'remove': expected one of deletion, insertion"):
        removed(np.arange(3), [0], "remove")


def test_ties_are_broken_by_position_so_the_later_unit_goes_first():
    order = ascending(np.array([[0.5, 0.1], [0.5, 0.1]]))
    assert order.tolist() == [1, 3, 0, 2]
    assert removed(order, [25], "deletion")[0].tolist() == [False, False, True, False]


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("input", (22, 5)),
        ("input-frames", (22,)),
        ("cross-attention", (22,)),
        ("encoder", (6,)),
        ("random", (22, 5)),
        ("random-frames", (22,)),
        ("random-encoder", (6,)),
    ],
)
def test_every_map_ranks_its_units_from_0_to_1(rng, name, shape):
    ranked = Ranking(name).sentence_map(make_attribution(rng))
    assert ranked.shape == shape
    assert ranked.min() >= 0
    assert ranked.max() <= 1
    assert set(RANKING_MAPS) == {
        *("input", "input-frames", "cross-attention", "encoder"),
        *("random", "random-frames", "random-encoder"),
    }


@pytest.mark.parametrize("name", ["random", "random-frames", "random-encoder"])
def test_random_maps_depend_on_seed_and_utterance_alone(rng, name):
    one, other = (make_attribution(rng, without=["input_saliency"]) for _ in range(2))
    ranked = Ranking(name).sentence_map(one)
    np.testing.assert_array_equal(Ranking(name).sentence_map(other), ranked)
    assert not np.array_equal(Ranking(name, seed=1).sentence_map(one), ranked)
    another = make_attribution(rng, id="a/2")
    assert not np.array_equal(Ranking(name).sentence_map(another), ranked)


def test_random_maps_rank_every_unit_alike(rng):
    ranks = np.stack(
        [
            ascending(Ranking("random-encoder", seed=seed).sentence_map(make_attribution(rng)))
            for seed in range(600)
        ]
    )
    # Six units, so each is the last one in a hundred of the orders, give or take.
    assert np.bincount(ranks[:, -1], minlength=6).min() > 65


@pytest.mark.parametrize("name", ["input-frames", "cross-attention"])
def test_the_frames_of_a_step_have_its_value(rng, name):
    ranked = Ranking(name).sentence_map(make_attribution(rng, T=22, frames_per_step=4))
    steps = ranked[::4]
    assert len(np.unique(steps)) == 6
    assert ranked.tolist() == [steps[frame // 4] for frame in range(22)]


def test_cross_attention_is_that_of_the_chosen_heads(rng):
    attribution = make_attribution(rng, L=3, H=4)
    chosen = Ranking("cross-attention", layers=(0, 2), heads=(1,)).sentence_map(attribution)
    weights = attribution.cross_attention
    mean = (weights[0, 1] + weights[2, 1]).astype(float) / 2
    rows = (mean - mean.min(1, keepdims=True)) / np.ptp(mean, axis=1, keepdims=True)
    np.testing.assert_allclose(chosen[::4], rows.mean(0), atol=1e-6)
    everything = Ranking("cross-attention").sentence_map(attribution)
    assert not np.allclose(chosen, everything)


@pytest.mark.parametrize(
    ("chosen", "said"), [({"layers": (2,)}, "layer 3"), ({"heads": (3,)}, "head 4")]
)
def test_a_head_that_is_not_there_is_named(rng, chosen, said):
    with pytest.raises(InputError, match=f"utterance 'a/1': no {said} in its cross-attention"):
        Ranking("cross-attention", **chosen).sentence_map(make_attribution(rng))


def test_previous_tokens_count_where_they_were_occluded(rng):
    maps, tokens = rng.random((12, 6, 3)), np.zeros((12, 12), dtype=np.float32)
    tokens[:, 0] = 1.0  # of all that a token depends on, the first one stands out
    alone, paired = sentence_mean(maps), sentence_mean(maps, tokens)
    assert paired.max() < alone.max()
    assert not np.allclose(alone, paired)


def test_a_row_without_a_range_ranks_nothing(rng):
    maps = rng.random((3, 4, 2))
    flat = np.concatenate([maps, np.full((1, 4, 2), 0.7)])
    np.testing.assert_allclose(sentence_mean(flat), sentence_mean(maps) * 3 / 4)


@pytest.mark.parametrize(
    ("name", "without", "flag"),
    [
        ("input", "input_saliency", "--explain input"),
        ("input-frames", "input_saliency", "--explain input"),
        ("cross-attention", "cross_attention", "--save-cross-attention"),
        ("encoder", "encoder_saliency", "--explain encoder"),
    ],
)
def test_a_missing_part_names_the_flag_that_saves_it(rng, name, without, flag):
    with pytest.raises(InputError, match=f"utterance 'a/1': saved without .* {flag}"):
        Ranking(name).sentence_map(make_attribution(rng, without=[without]))


@pytest.mark.parametrize(
    ("name", "array"), [("cross-attention", "cross_attention"), ("encoder", "encoder_saliency")]
)
def test_nan_names_utterance_and_array(rng, name, array):
    values = getattr(make_attribution(rng), array).copy()
    values[..., 2] = np.nan
    with pytest.raises(InputError, match=rf"utterance 'a/1': {array} has \d+ of \d+ values"):
        Ranking(name).sentence_map(make_attribution(rng, **{array: values}))


@pytest.mark.parametrize("name", ["input", "input-frames"])
def test_nan_of_a_segmentation_names_it(rng, name):
    dense = rng.random((7, 22, 5))
    dense[3, 1, 1] = np.inf
    attribution = make_attribution(rng, input_saliency=as_segments(dense))
    with pytest.raises(InputError, match="utterance 'a/1': input_numerator_0 has 1 of 770 values"):
        Ranking(name).sentence_map(attribution)


def test_frames_that_do_not_fit_the_encoder_steps_are_an_error_of_the_utterance(rng):
    steps = np.full((2, 3, 7, 9), 1 / 9, dtype=np.float32)  # of 22 frames, 4 a step
    attribution = make_attribution(rng, cross_attention=steps)
    with pytest.raises(InputError, match="utterance 'a/1': "):
        Ranking("input-frames").sentence_map(attribution)
