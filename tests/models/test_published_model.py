"""The model computes what the published implementation computes with the same weights."""

import numpy as np
import pytest
import torch
from fairseq.sequence_generator import SequenceGenerator
from golden import published

from fbk_xattn.generation.recorder import CrossAttentionRecorder

CLOSE = {"atol": 2e-5, "rtol": 0}
ALL = tuple(range(6))


@torch.no_grad()
def forward(sample):
    """Return the outputs for the reference texts, named as in the recorded values."""
    model, _, _ = published.load()
    net_input = sample["net_input"]
    tokens = net_input["prev_output_tokens"]
    with CrossAttentionRecorder(model.decoder) as recorder:
        out = model.encoder(net_input["src_tokens"], net_input["src_lengths"], True)
        logits, _ = model.decoder(tokens, encoder_out=out)
    return {
        "src_tokens": net_input["src_tokens"],
        "prev_output_tokens": tokens,
        "encoder_out": out["encoder_out"][0].transpose(0, 1),
        "enc_states": torch.stack(out["encoder_states"]).transpose(0, 2).transpose(1, 2),
        "ctc_out": model.encoder.ctc_logits(out).transpose(0, 1),
        "aux": model.auxiliary_logits(out, tokens),
        "logits": logits,
        "xattn": recorder.cross_attention(),
    }, out["src_lengths"][0].tolist()


def test_position_table_is_the_published_one():
    model, _, _ = published.load()
    recorded = published.arrays("forward_joint")
    positions = model.encoder.positions
    assert positions.shape == (10_000, 64)
    np.testing.assert_allclose(positions[:300], recorded["positions"], atol=1e-6)
    np.testing.assert_allclose(positions[9999], recorded["position_9999"], atol=1e-6)


NAMES = ("src_tokens", "prev_output_tokens", "encoder_out", "enc_states", "ctc_out", "aux",
         "logits", "xattn")  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_utterance_alone_gives_the_published_values(name):
    outputs, _ = forward(published.batch(0))
    recorded = published.arrays("forward_joint")[f"utt0/{name}"]
    assert outputs[name][0].shape == recorded.shape
    np.testing.assert_allclose(outputs[name][0], recorded, **CLOSE)


@pytest.fixture(scope="module")
def batch_outputs():
    outputs, steps = forward(published.batch(*ALL))
    ids = published.batch(*ALL)["id"].tolist()
    return outputs, dict(zip(ids, steps, strict=True)), ids


RECORDED = [key for key in published.arrays("forward_joint") if key.startswith("batch/")]


@pytest.mark.parametrize("key", RECORDED)
def test_batch_gives_the_published_values(batch_outputs, key):
    outputs, steps, ids = batch_outputs
    _, utterance, name = key.split("/")
    values, n_steps = outputs[name][ids.index(int(utterance))], steps[int(utterance)]
    recorded = published.arrays("forward_joint")[key]
    if name == "xattn":
        values = values[:, :, : recorded.shape[2], :n_steps]
    elif name == "enc_states":
        values = values[:, :n_steps]
    elif name == "logits":
        values = values[: len(recorded)]
    else:
        values = values[:n_steps]
    assert values.shape == recorded.shape
    np.testing.assert_allclose(values, recorded, **CLOSE)


def test_something_of_every_kind_is_recorded_of_the_batch():
    assert {key.split("/")[2] for key in RECORDED} == set(NAMES[2:])


def test_checkpoint_has_every_weight_of_the_model():
    from fbk_xattn.checkpoints import load_checkpoint

    model, _, _ = published.load()
    saved = load_checkpoint(published.CHECKPOINT)["model"]
    own = model.state_dict()
    placeholder = {"decoder.embed_positions._float_tensor"}
    assert saved.keys() | placeholder == own.keys() | placeholder
    for name in saved.keys() - placeholder:
        assert torch.equal(saved[name], own[name]), name


def beam_search(sample):
    """Decode with the recorded settings; return best hypotheses by utterance."""
    model, task, _ = published.load()
    settings = published.values("hyps_joint")["gen"]
    generator = SequenceGenerator(
        [model],
        task.target_dictionary,
        beam_size=settings["beam"],
        max_len_a=settings["max_len_a"],
        max_len_b=settings["max_len_b"],
        min_len=settings["min_len"],
        normalize_scores=settings["normalize_scores"],
        len_penalty=settings["len_penalty"],
        unk_penalty=settings["unk_penalty"],
        temperature=settings["temperature"],
        no_repeat_ngram_size=5,
        symbols_to_strip_from_output=set(settings["symbols_to_strip"]),
    )
    with torch.no_grad():
        hypotheses = generator.generate([model], sample, prefix_tokens=sample["target"][:, :1])
    return dict(zip(sample["id"].tolist(), [h[0] for h in hypotheses], strict=True))


@pytest.mark.parametrize("utterances", [(0,), (1,), (2,), (3,), (4,), (5,), ALL])
def test_beam_search_finds_the_published_hypotheses(utterances):
    recorded = published.values("hyps_joint")["batch" if utterances == ALL else "single"]
    for utterance, best in beam_search(published.batch(*utterances)).items():
        expected = recorded[str(utterance)]
        assert best["tokens"].tolist() == expected["tokens"]
        assert best["score"].item() == pytest.approx(expected["score"], abs=1e-4)
        np.testing.assert_allclose(
            best["positional_scores"], expected["positional_scores"], atol=1e-4
        )
