import pytest
import torch
from golden import published

from fbk_xattn.generation.generator import EncoderKeepingGenerator
from fbk_xattn.generation.recorder import RECORDERS
from fbk_xattn.generation.teacher_forcing import teacher_force

PAD, EOS = 1, 2
CLOSE = {"atol": 1e-5, "rtol": 1e-5}


@pytest.fixture(scope="module", params=[(0, 1, 2, 3), (1,), (0, 0)], ids=str)
def decoded(request):
    """Decode a batch (padded, alone, of one length); return it with all that is kept."""
    model, task, _ = published.load()
    sample = published.batch(*request.param)
    generator = EncoderKeepingGenerator(
        [model], task.target_dictionary, beam_size=3, max_len_b=30, no_repeat_ngram_size=5
    )
    with torch.no_grad():
        hypotheses = generator.generate([model], sample, prefix_tokens=sample["target"][:, :1])
    return sample, generator.encoder_out, [beams[0] for beams in hypotheses]


@pytest.fixture(scope="module", params=RECORDERS)
def recorder_of(request):
    return RECORDERS[request.param]


@pytest.fixture(scope="module")
def forced(decoded, recorder_of):
    _, encoder_out, best = decoded
    model, _, _ = published.load()
    recorder = recorder_of(model.decoder)
    return teacher_force(model, encoder_out, [h["tokens"] for h in best], PAD, EOS, recorder)


def test_encoder_output_is_that_of_the_batch_and_not_of_its_beams(decoded):
    sample, encoder_out, _ = decoded
    model, _, _ = published.load()
    net_input = sample["net_input"]
    with torch.no_grad():
        again = model.encoder(net_input["src_tokens"], net_input["src_lengths"])
    assert torch.equal(encoder_out["encoder_out"][0], again["encoder_out"][0])
    assert len(encoder_out["src_lengths"][0]) == len(sample["id"])


def test_encoder_output_is_that_of_the_last_batch():
    model, task, _ = published.load()
    generator = EncoderKeepingGenerator([model], task.target_dictionary, beam_size=1, max_len_b=3)
    lengths = []
    for utterance in (1, 0):
        sample = published.batch(utterance)
        with torch.no_grad():
            generator.generate([model], sample, prefix_tokens=sample["target"][:, :1])
        lengths.append(generator.encoder_out["encoder_out"][0].shape[0])
    assert lengths == [55, 42]


def test_it_equals_what_beam_search_computed_step_by_step(decoded, forced):
    _, _, best = decoded
    for hypothesis, view in zip(best, forced, strict=True):
        log_probs = view.logits.log_softmax(dim=-1)
        scores = log_probs.gather(1, hypothesis["tokens"][:, None])[:, 0]
        torch.testing.assert_close(scores, hypothesis["positional_scores"], **CLOSE)


def test_it_equals_a_pass_over_each_utterance_alone(decoded, forced, recorder_of):
    sample, _, best = decoded
    model, _, _ = published.load()
    net_input = sample["net_input"]
    for row, (hypothesis, view) in enumerate(zip(best, forced, strict=True)):
        length = int(net_input["src_lengths"][row])
        inputs = torch.tensor([[EOS, *hypothesis["tokens"].tolist()[:-1]]])
        with torch.no_grad(), recorder_of(model.decoder) as recorder:
            out = model.encoder(net_input["src_tokens"][row : row + 1, :length], None)
            logits, _ = model.decoder(inputs, encoder_out=out)
        assert torch.equal(view.prev_output_tokens, inputs[0])
        torch.testing.assert_close(view.encoder_out, out["encoder_out"][0][:, 0], **CLOSE)
        torch.testing.assert_close(view.logits, logits[0], **CLOSE)
        torch.testing.assert_close(view.cross_attention, recorder.cross_attention()[0], **CLOSE)


def test_views_have_no_padding_and_no_graph(decoded, forced):
    sample, _, best = decoded
    model, task, _ = published.load()
    n_layers, n_heads = len(model.decoder.layers), model.decoder.layers[0].encoder_attn.num_heads
    for length, hypothesis, view in zip(
        sample["net_input"]["src_lengths"].tolist(), best, forced, strict=True
    ):
        S, steps = len(hypothesis["tokens"]), -(-length // 4)
        assert view.logits.shape == (S, len(task.target_dictionary))
        assert view.encoder_out.shape == (steps, 64)
        assert view.cross_attention.shape == (n_layers, n_heads, S, steps)
        assert view.cross_attention.dtype == torch.float32
        assert view.cross_attention.isfinite().all()
        assert not any(
            t.requires_grad for t in (view.logits, view.encoder_out, view.cross_attention)
        )


def test_cross_attention_is_recorded_only_when_asked_for(decoded, forced, monkeypatch):
    _, encoder_out, best = decoded
    model, _, _ = published.load()
    asked = []
    for layer in model.decoder.layers:
        forward = layer.encoder_attn.forward

        def spy(*args, forward=forward, **kwargs):
            asked.append(kwargs["need_head_weights"])
            return forward(*args, **kwargs)

        monkeypatch.setattr(layer.encoder_attn, "forward", spy)
    views = teacher_force(model, encoder_out, [h["tokens"] for h in best], PAD, EOS)
    assert len(asked) == len(model.decoder.layers)
    assert not any(asked[:-1])  # for those of the last layer fairseq asks itself
    for view, recorded in zip(views, forced, strict=True):
        assert view.cross_attention is None
        assert torch.equal(view.logits, recorded.logits)


def test_first_row_follows_eos_and_the_last_predicts_it(decoded, forced):
    _, _, best = decoded
    for hypothesis, view in zip(best, forced, strict=True):
        tokens = hypothesis["tokens"].tolist()
        assert tokens[-1] == EOS
        assert view.prev_output_tokens.tolist() == [EOS, *tokens[:-1]]
