"""Copies of utterances without a part, on the published model."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from golden import published

from fbk_xattn.analysis.ranking import removed
from fbk_xattn.generation.removal import (
    Copy,
    RemovalGenerator,
    batches_of_copies,
    copies_without_features,
    encoder_output_of_copies,
    select_copies,
)

PERCENTAGES = np.arange(0, 101, 5)


@pytest.fixture(scope="module")
def generator():
    model, task, _ = published.load()
    return RemovalGenerator(
        [model], task.target_dictionary, beam_size=5, no_repeat_ngram_size=5, max_len_b=200,
        symbols_to_strip_from_output=task._language_tags(),
    )  # fmt: skip


def decode(generator, sample, tag):
    prefix = torch.full((len(sample["net_input"]["src_lengths"]), 1), tag)
    beams = generator.generate([published.load()[0]], sample, prefix_tokens=prefix)
    dictionary = published.load()[1].target_dictionary
    skipped = {*published.load()[1]._language_tags(), dictionary.eos()}
    return [dictionary.string(b[0]["tokens"], "sentencepiece", extra_symbols_to_ignore=skipped)
            for b in beams]  # fmt: skip


@pytest.mark.parametrize("mode", ["deletion", "insertion"])
def test_what_is_decoded_is_what_the_published_system_decodes(generator, mode):
    batch = published.batch(1)
    order = published.arrays("deletion")["ordered_indices"].astype(np.int64)
    masks = removed(order, PERCENTAGES, mode).reshape(21, 220, 80)
    copies = [Copy(0, step) for step in range(21)]
    sample = copies_without_features(batch, copies, masks)
    texts = decode(generator, sample, tag=int(batch["target"][0, 0]))
    golden = [step[1] for step in published.values("deletion_hyps")[mode]]
    assert [text.strip() for text in texts] == golden


def test_features_of_other_cells_stay_and_the_batch_too(rng):
    batch = published.batch(0, 1)
    before = batch["net_input"]["src_tokens"].clone()
    lengths = batch["net_input"]["src_lengths"].tolist()
    copies = [Copy(1, 0), Copy(0, 0), Copy(1, 1)]
    masks = [rng.random((lengths[copy.row], 80)) < 0.5 for copy in copies]
    features = copies_without_features(batch, copies, masks)["net_input"]["src_tokens"]
    for item, (copy, mask) in enumerate(zip(copies, masks, strict=True)):
        T = lengths[copy.row]
        expected = np.where(mask, 0, before[copy.row, :T].numpy())
        np.testing.assert_array_equal(features[item, :T].numpy(), expected)
    assert torch.equal(batch["net_input"]["src_tokens"], before)


def test_whole_frames_are_zeroed():
    batch = published.batch(0)
    frames = np.arange(166) % 3 == 0
    sample = copies_without_features(batch, [Copy(0, 0)], [frames])
    features = sample["net_input"]["src_tokens"][0]
    assert (features[frames] == 0).all()
    kept = batch["net_input"]["src_tokens"][0][~frames]
    assert torch.equal(features[~frames], kept)


def test_batches_are_cut_to_their_longest_copy():
    batch = published.batch(5, 0)
    assert batch["net_input"]["src_tokens"].shape[1] == 1049
    assert select_copies(batch, [Copy(1, 0)] * 3)["net_input"]["src_tokens"].shape == (3, 166, 80)


@torch.no_grad()
def test_encoder_steps_are_zeroed_without_encoding_again(generator):
    model = published.load()[0]
    batch = published.batch(0, 1)
    net_input = batch["net_input"]
    encoder_out = model.encoder(net_input["src_tokens"], net_input["src_lengths"])
    before = encoder_out["encoder_out"][0].clone()
    masks = [np.arange(55) < 10, np.arange(42) >= 42]
    copies = [Copy(0, 0), Copy(1, 0)]
    given = encoder_output_of_copies(model, encoder_out, copies, masks)
    states = given["encoder_out"][0]
    assert (states[:10, 0] == 0).all()
    assert torch.equal(states[10:, 0], before[10:, 0])
    assert torch.equal(states[:, 1], before[:, 1])
    assert torch.equal(encoder_out["encoder_out"][0], before)
    generator.model.given = given
    assert generator.model.forward_encoder({}) == [given]
    generator.model.given = None


def test_batches_of_copies_are_as_full_as_the_limits_allow():
    batches = list(batches_of_copies([0, 1], 21, [100, 60], 1000, None))
    assert [len(batch) for batch in batches] == [10, 10, 10, 12]
    assert [(c.row, c.step) for batch in batches for c in batch] == [
        (row, step) for row in (0, 1) for step in range(21)
    ]
    assert [len(b) for b in batches_of_copies([0], 21, [100], None, 8)] == [8, 8, 5]
    assert [len(b) for b in batches_of_copies([0, 2], 3, [9, 9, 9], None, None)] == [6]


def test_a_copy_larger_than_the_limit_is_a_batch_of_its_own():
    assert [len(b) for b in batches_of_copies([0], 3, [100], 50, None)] == [1, 1, 1]
    assert list(batches_of_copies([], 3, [100], 50, None)) == []
