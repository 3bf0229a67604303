"""``fairseq-generate`` with other explanations than the paper's, other models, and few masks."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
from fairseq import options
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq_cli import interactive, train
from fairseq_runs import ROOT, generate_argv, run_generate

from fbk_xattn.analysis.maps import saliency_map
from fbk_xattn.cli.main import main
from fbk_xattn.data.manifest import read_manifest, write_manifest
from fbk_xattn.errors import InputError
from fbk_xattn.store import AttributionStore

BOTH = ("--save-cross-attention", "--explain", "input", "encoder")


def check(path, n_utterances=5):
    """Assert that all utterances are there with maps of numbers, and return them."""
    attributions = list(AttributionStore.open(path))
    assert len(attributions) == n_utterances
    for attribution in attributions:
        assert np.isfinite(attribution.input_saliency.dense()).all()
        for target in ("input", "encoder"):
            assert np.isfinite(saliency_map(attribution, target)).all()
    return attributions


@pytest.mark.parametrize("segmentation", ["cell", "frame", "band"])
def test_segmentations_scorer_and_previous_tokens_go_together(
    data, checkpoint, tmp_path, segmentation
):
    flags = [
        *(*BOTH, "--num-masks", "6", "--input-segmentation", segmentation),
        *("--scorer", "probability", "--previous-token-occlusion-probability", "0.4"),
    ]
    store = tmp_path / "store"
    run_generate(data, checkpoint, "--attribution-dir", store, *flags)
    for attribution in check(store):
        S, (T, F) = len(attribution.tokens), attribution.fbank.shape
        (level,) = attribution.input_saliency.levels
        assert level.numerator.shape == (S, {"cell": T * F, "frame": T, "band": F}[segmentation])
        assert attribution.token_saliency.shape == (S, S)
        assert np.isfinite(attribution.token_saliency).all()
        assert abs(attribution.token_saliency).max() > 0
        assert (np.triu(attribution.token_saliency, 1) == 0).all()
        assert -1 <= attribution.encoder_saliency.min() <= attribution.encoder_saliency.max() <= 1
    output = tmp_path / "x.h5"
    assert main(["export", str(store), "--output", str(output)]) == 0
    with h5py.File(output) as file:
        for number, attribution in enumerate(AttributionStore.open(store)):
            tokens = file[f"{number}/tgt_embed_heatmap"][()]
            np.testing.assert_array_equal(tokens[:, :, 0], attribution.token_saliency)
    with pytest.raises(InputError, match="--scorer = probability, this run has kl"):
        run_generate(data, checkpoint, "--attribution-dir", store, *flags, "--scorer", "kl")


def test_input_is_occluded_alike_with_and_without_previous_tokens(data, checkpoint, tmp_path):
    flags = (*BOTH, "--num-masks", "6")
    run_generate(data, checkpoint, "--attribution-dir", tmp_path / "alone", *flags)
    joint = ("--previous-token-occlusion-probability", "0.4")
    run_generate(data, checkpoint, "--attribution-dir", tmp_path / "joint", *flags, *joint)
    for alone, both in zip(check(tmp_path / "alone"), check(tmp_path / "joint"), strict=True):
        assert alone.token_saliency is None
        for ours, theirs in zip(
            both.input_saliency.levels, alone.input_saliency.levels, strict=True
        ):
            np.testing.assert_array_equal(ours.denominator, theirs.denominator)
        np.testing.assert_array_equal(both.encoder_saliency, alone.encoder_saliency)


@pytest.mark.parametrize("n_masks", [1, 2])
def test_fewer_masks_than_levels(data, checkpoint, tmp_path, n_masks, capsys):
    store = tmp_path / "store"
    run_generate(data, checkpoint, "--attribution-dir", store, *BOTH, "--num-masks", n_masks)
    for attribution in check(store):
        levels = attribution.input_saliency.levels
        assert [level.denominator.any() for level in levels] == [n < n_masks for n in range(3)]
    assert main(["export", str(store), "--output", str(tmp_path / "x.h5")]) == 0
    assert main(["correlate", str(store), "--target", "encoder"]) == 0
    # One mask has one score a token: the largest in the window of a step is the same in all.
    constant = n_masks == 1
    assert main(["correlate", str(store), "--target", "input"]) == (2 if constant else 0)
    printed = capsys.readouterr()
    assert "nan" not in printed.out.lower()
    assert ("no correlation is defined for any of 5 utterances" in printed.err) == constant


def test_everything_occluded_in_every_mask(data, checkpoint, tmp_path):
    flags = [f"--{part}-occlusion-probability" for part in ("input", "encoder", "previous-token")]
    run_generate(
        data, checkpoint, "--attribution-dir", tmp_path, *BOTH, "--num-masks", "4",
        *(word for flag in flags for word in (flag, "1")),
    )  # fmt: skip
    for attribution in check(tmp_path):
        for saliency in (attribution.input_saliency.dense(), attribution.encoder_saliency):
            rows = saliency.reshape(len(saliency), -1)
            assert (rows.max(axis=1) > 0).all()
            np.testing.assert_allclose(rows, rows[:, :1] + np.zeros_like(rows), rtol=1e-6)
        rows, columns = np.tril_indices(len(attribution.tokens))
        # What every mask occluded has one saliency, token or speech.
        np.testing.assert_allclose(
            attribution.token_saliency[rows, columns],
            attribution.input_saliency.dense()[rows, 0, 0],
            rtol=1e-5,
        )


def test_a_low_rate_puts_an_utterance_into_a_single_segment(data, checkpoint, tmp_path):
    flags = ("--num-masks", "9", "--slic-segments-per-second", "0.1")
    run_generate(data, checkpoint, "--attribution-dir", tmp_path, *BOTH, *flags)
    for attribution in check(tmp_path):
        (level,) = attribution.input_saliency.levels
        assert level.denominator.shape == (1,)


def test_constant_spectrograms_and_speech_of_a_fifth_of_a_second(data, checkpoint, tmp_path):
    rows = read_manifest(data / "test.tsv")[:2]
    folder = tmp_path / "data"
    folder.mkdir()
    for file in data.iterdir():
        if file.suffix != ".tsv":
            (folder / file.name).symlink_to(file)
    features = {"constant": np.full((60, 80), -3.0), "short": np.random.default_rng(0)
                .standard_normal((20, 80))}  # fmt: skip
    made = []
    for row, (name, array) in zip(rows, features.items(), strict=True):
        np.save(folder / f"{name}.npy", array.astype(np.float32))
        made.append(
            type(row)(**{**vars(row), "id": name, "audio": f"{name}.npy", "n_frames": len(array)})
        )
    write_manifest(folder / "test.tsv", made)
    flags = ("--num-masks", "9", "--previous-token-occlusion-probability", "0.3")
    run_generate(folder, checkpoint, "--attribution-dir", tmp_path / "store", *BOTH, *flags)
    for attribution in check(tmp_path / "store", 2):
        assert np.isfinite(attribution.token_saliency).all()


@pytest.mark.parametrize("tokens", [1, 300])
def test_hypotheses_of_one_and_of_300_tokens(data, checkpoint, tmp_path, tokens):
    # eos included; at one token it is alone, without the language tag that is forced.
    length = ("--max-len-b", tokens - 1, "--min-len", tokens - 1)
    flags = ("--num-masks", "3", *length, "--beam", "1", "--max-len-a", "0")
    run_generate(data, checkpoint, "--attribution-dir", tmp_path, *BOTH, *flags)
    for attribution in check(tmp_path):
        assert len(attribution.tokens) == tokens


@pytest.fixture(scope="module")
def s2t_transformer(data, tmp_path_factory):
    """A checkpoint of fairseq's own ``s2t_transformer`` after one update."""
    folder = tmp_path_factory.mktemp("s2t_transformer")
    argv = [
        str(data), "--user-dir", str(ROOT / "fbk_xattn"), "--task", "speech_to_text_ctc",
        "--train-subset", "train", "--valid-subset", "dev", "--arch", "s2t_transformer",
        "--encoder-layers", "2", "--decoder-layers", "2", "--encoder-embed-dim", "32",
        "--encoder-ffn-embed-dim", "64", "--conv-channels", "32", "--encoder-attention-heads", "4",
        "--decoder-attention-heads", "4", "--criterion", "label_smoothed_cross_entropy",
        "--ignore-prefix-size", "1", "--optimizer", "adam", "--lr", "1e-3", "--max-tokens", "600",
        "--max-update", "1", "--cpu", "--num-workers", "0", "--save-dir", str(folder),
        "--disable-validation",
    ]  # fmt: skip
    args = options.parse_args_and_arch(options.get_training_parser(), input_args=argv)
    train.main(convert_namespace_to_omegaconf(args))
    return folder / "checkpoint_last.pt"


def test_a_model_of_fairseq_without_ctc_is_explained(data, s2t_transformer, tmp_path):
    flags = ("--num-masks", "8", "--previous-token-occlusion-probability", "0.4")
    run_generate(data, s2t_transformer, "--attribution-dir", tmp_path, *BOTH, *flags)
    for attribution in check(tmp_path):
        S, T = len(attribution.tokens), len(attribution.fbank)
        assert attribution.frames_per_step == 4
        assert attribution.cross_attention.shape == (2, 4, S, -(-T // 4))
        assert attribution.input_saliency.dense().max() > 0
        assert attribution.encoder_saliency.max() > 0
        assert attribution.token_saliency.max() > 0


def test_maps_of_fairseqs_models_do_not_depend_on_their_batch(data, s2t_transformer, tmp_path):
    flags = ("--num-masks", "8", "--max-len-b", "6", "--min-len", "6", "--max-len-a", "0")
    for name, more in ("batch", ()), ("alone", ("--batch-size", "1")):
        store = ("--attribution-dir", tmp_path / name)
        run_generate(data, s2t_transformer, *store, *BOTH, *flags, *more)
    for one, other in zip(check(tmp_path / "batch"), check(tmp_path / "alone"), strict=True):
        assert one.tokens == other.tokens
        for part in (
            lambda a: a.cross_attention,
            lambda a: a.encoder_saliency,
            lambda a: a.input_saliency.dense(),
        ):
            np.testing.assert_allclose(part(one), part(other), rtol=1e-4, atol=1e-7)


def test_interactive_decoding_with_language_tags_is_refused(data, checkpoint):
    argv = generate_argv(data, checkpoint)
    argv.remove("--gen-subset")
    argv.remove("test")
    args = options.parse_args_and_arch(options.get_interactive_generation_parser(), input_args=argv)
    with pytest.raises(InputError, match=r"^fairseq-interactive: .* expected fairseq-generate"):
        interactive.main(convert_namespace_to_omegaconf(args))
