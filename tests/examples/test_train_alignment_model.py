"""Alignment with a model: what it hears, wrong checkpoints, and the file of parts."""

import itertools
import logging
from argparse import Namespace

import numpy as np
import pytest
import soundfile
import torch
from checkpoint_files import refused, save_checkpoint
from fairseq.data.audio.feature_transforms.utterance_cmvn import UtteranceCMVN
from speech import chirps
from test_train_alignment import tones
from test_train_build import HELD_OUT, TEXTS, recording, write_rows

from examples.prompts.train import alignment
from examples.prompts.train.alignment import (
    STEP,
    Aligner,
    Part,
    align,
    main,
)
from examples.prompts.train.fragments import CUT
from examples.prompts.train.recordings import read_speech_manifest
from examples.prompts.train.splicing import read_parts
from fbk_xattn.data.features import SAMPLE_RATE, fbank
from fbk_xattn.data.vocabulary import train_vocabulary
from fbk_xattn.models.conformer_encoder import ConformerEncoder

# --- A model


ARGUMENTS = Namespace(
    encoder_embed_dim=16, conv_kernel_sizes="5,5", input_feat_per_channel=80, input_channels=1,
    conv_channels=16, no_scale_embedding=False, dropout=0.1, encoder_attention_heads=2,
    feed_forward_expansion_factor=2, conv_expansion_factor=2, conformer_conv_kernel_size=7,
    conformer_feedforward_dropout=0.1, conformer_attention_dropout=0.1, conformer_conv_dropout=0.1,
    conformer_half_step_residual=True, no_syncbatchnorm=True, encoder_layers=2, ctc_encoder_layer=1,
)  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A random model's checkpoint in half precision and its vocabulary."""
    folder = tmp_path_factory.mktemp("model")
    texts = [text.lower().strip(".") for pair in TEXTS for text in pair if text]
    n = train_vocabulary(texts, ["en", "it"], 50, folder / "spm.model", folder / "dict.txt")
    torch.manual_seed(4)
    weights = ConformerEncoder(ARGUMENTS, n + 1).state_dict()
    saved = {f"encoder.{name}": weight.half() for name, weight in weights.items()}
    saved["decoder.weight"] = torch.zeros(3)
    return save_checkpoint(folder, model=saved, cfg={"model": ARGUMENTS}), folder


@pytest.fixture(scope="module")
def aligner(model):
    return Aligner(*model)


@pytest.mark.parametrize("seconds", [0.0, 0.02, 0.03, 0.1, 0.6, 2.0])
def test_a_random_model_finds_parts_or_none(aligner, monkeypatch, seconds):
    samples = (2**15 * chirps(np.random.default_rng(1), seconds)).astype(np.float32)
    text = "wait enter the number"
    assert aligner.parts(samples, text) == []  # it hears nothing
    monkeypatch.setattr(alignment, "WORST", -100.0)
    monkeypatch.setattr(alignment, "PER_LETTER", (0.0, 9.0))
    found = aligner.parts(samples, text)
    # The tokens fit into more than half a second.
    whole = [part.text for part in found if CUT not in part.text]
    assert " ".join(whole) == (text if seconds > 0.5 else "")
    assert aligner.parts(samples, text) == found


def test_a_recording_too_long_for_the_model_has_no_parts(aligner, monkeypatch):
    monkeypatch.setattr(aligner.encoder, "max_positions", lambda: 98)
    monkeypatch.setattr(alignment, "fbank", lambda _: pytest.fail("nothing to compute"))
    assert aligner.parts(np.ones(SAMPLE_RATE + 400, np.float32), "wait") == []


def test_the_model_hears_the_features_it_was_trained_on(aligner, monkeypatch):
    heard = []
    forward = aligner.encoder.forward

    def encode(*given):
        heard.append(given)
        return forward(*given)

    monkeypatch.setattr(aligner.encoder, "forward", encode)
    samples = (2**15 * chirps(np.random.default_rng(1), 0.7)).astype(np.float32)
    aligner.parts(samples, "wait")
    ((features, lengths),) = heard
    assert lengths is None
    expected = UtteranceCMVN()(fbank(samples))
    assert (features.numpy() == expected[None]).all()
    assert features.dtype == torch.float32


def test_parts_are_where_the_tokens_are_heard(aligner, monkeypatch):
    """A head that hears each token in a step of its own."""
    text = "please enter number"
    pieces = aligner.pieces.encode(text, out_type=str)
    starts = [n for n, piece in enumerate(pieces) if piece.startswith("▁")]
    samples = tones(*(2 * [0.4, -0.1]), 0.5)
    centres = dict(zip([*starts, len(pieces)], (0.04, 0.56, 1.04, 1.5), strict=True))
    scores = torch.full((len(samples) // 640 + 1, 1, aligner.blank + 1), -20.0)
    scores[..., aligner.blank] = 0.0
    for first, after in itertools.pairwise(centres):
        for n in range(first, after):
            step = round(centres[first] / STEP) + n - first
            scores[step, 0, aligner.dictionary.index(pieces[n])] = 20.0
    # Only the head is made up.
    monkeypatch.setattr(aligner.encoder, "ctc_logits", lambda _: scores)
    found = [part for part in aligner.parts(samples, text) if CUT not in part.text]
    assert [part.text for part in found] == ["please", "enter", "number"]
    assert 0.4 <= found[0].end < 0.5
    assert 0.9 <= found[1].end < 1.0
    # Nothing where the tokens are improbable.
    assert aligner.parts(samples, "number please enter") == []


def without(weights, *names):
    return {name: weight for name, weight in weights.items() if name not in names}


def test_another_checkpoint_or_vocabulary_is_one_line(model, tmp_path):
    checkpoint, vocabulary = model
    found = torch.load(checkpoint, weights_only=False)
    weights, cfg = found["model"], found["cfg"]
    assert "gone.pt: no such checkpoint" in refused(Aligner, tmp_path / "gone.pt", vocabulary)
    broken = tmp_path / "broken.pt"
    broken.write_bytes(checkpoint.read_bytes()[:999])
    assert "broken.pt: unreadable checkpoint" in refused(Aligner, broken, vocabulary)
    head = without(weights, "encoder.ctc_fc.weight", "encoder.ctc_fc.bias")
    deep, other = (
        {"model": Namespace(**vars(ARGUMENTS) | changed)}
        for changed in ({"encoder_layers": 3}, {"ctc_encoder_layer": 9})
    )
    no_conformer = "expected a checkpoint of conformer or conformer_joint_ctc ("
    for changed, message in (
        ({"model": head, "cfg": cfg}, "has no encoder.ctc_fc, expected a model trained with CTC"),
        ({"model": weights}, no_conformer),
        ({"model": weights, "cfg": None}, no_conformer),
        ({"model": weights, "cfg": {"model": Namespace()}}, no_conformer),
        ({"model": weights, "cfg": deep}, f"{no_conformer}Error(s) in loading"),
        ({"model": weights, "cfg": other}, "--ctc-encoder-layer 9, expected 1 to 2"),
    ):
        path = save_checkpoint(tmp_path, "other.pt", **changed)
        assert message in refused(Aligner, path, vocabulary)


def test_another_vocabulary_is_one_line(model, tmp_path):
    checkpoint, vocabulary = model
    assert "has no spm.model, expected a vocabulary" in refused(Aligner, checkpoint, tmp_path)
    spm = (vocabulary / "spm.model").read_bytes()
    (tmp_path / "spm.model").write_bytes(spm)
    assert "has no dict.txt, expected a vocabulary" in refused(Aligner, checkpoint, tmp_path)
    for content in (b"a\n", b"\xff 1\n", b"a b\n"):
        (tmp_path / "dict.txt").write_bytes(content)
        assert f"{tmp_path}: unreadable (" in refused(Aligner, checkpoint, tmp_path)
    lines = (vocabulary / "dict.txt").read_text(encoding="utf-8").splitlines(keepends=True)
    (tmp_path / "dict.txt").write_text("".join(lines[1:]), encoding="utf-8")
    n = len(lines) + 4
    assert f"{n - 1} symbols, expected the {n} of {checkpoint}" in refused(
        Aligner, checkpoint, tmp_path
    )
    (tmp_path / "spm.model").write_bytes(spm[:99])
    assert f"{tmp_path}: unreadable (" in refused(Aligner, checkpoint, tmp_path)


# --- The file


@pytest.fixture
def speech(tmp_path):
    (tmp_path / "audio").mkdir()
    rng = np.random.default_rng(3)
    rows = []
    for lang in ("en", "it"):
        for number, texts in enumerate([*TEXTS, HELD_OUT["dev"]]):
            split = "train" if number < len(TEXTS) else "dev"
            row = recording(str(number), f"voice_{lang}", split, texts, lang, suffix="wav")
            soundfile.write(tmp_path / row["audio"], chirps(rng, 1.2), SAMPLE_RATE)
            rows.append(row)
    rows[1]["src_text"] = "Thank YOU!"
    write_rows(tmp_path, rows)
    return tmp_path


def test_parts_are_written_for_build(speech, model, monkeypatch, caplog):
    heard = []

    def found(_, samples, text):
        heard.append((len(samples), text))
        return [Part(text, 0.0, 0.5), Part("più", 0.504, 1.0)] if "you" in text else []

    caplog.set_level(logging.INFO)
    monkeypatch.setattr(Aligner, "parts", found)
    main([str(speech), *map(str, model)])
    rows = read_speech_manifest(speech, True)
    # Not those of dev, and with clean texts.
    assert [text for _, text in heard[:3]] == ["press one please", "thank you",
                                               "the line is busy at this time"]  # fmt: skip
    assert len(heard) == 2 * len(TEXTS)
    assert {n for n, _ in heard} == {19_200}
    assert (speech / "parts.tsv").read_text(encoding="utf-8") == (
        "id\tstart\tend\ttext\nvoice_en/1\t0.00\t0.50\tthank you\nvoice_en/1\t0.50\t1.00\tpiù\n"
    )
    assert [part.text for part in read_parts(speech, rows)] == ["thank you", "più"]
    assert "2 parts of 1 of 10 recordings" in caplog.text


def test_a_random_model_writes_what_build_reads(speech, model, monkeypatch):
    monkeypatch.setattr(alignment, "WORST", -100.0)
    monkeypatch.setattr(alignment, "PER_LETTER", (0.0, 9.0))
    align(speech, *model)
    assert len(read_parts(speech, read_speech_manifest(speech, True))) >= 3


def test_a_letter_that_the_vocabulary_lacks_is_named(speech, model, capsys):
    rows = read_speech_manifest(speech, True)
    rows[2]["src_text"] = "the jukebox"
    write_rows(speech, rows)
    with pytest.raises(SystemExit) as caught:
        main([str(speech), *map(str, model)])
    message = str(caught.value)
    assert message.startswith(f"error: {speech}/manifest.tsv, id voice_en/2: 'j' of 'the jukebox'")
    assert message.endswith("is not in the vocabulary, expected its model's")
    assert "\n" not in message
    assert not (speech / "parts.tsv").exists()
    capsys.readouterr()
