import numpy as np
import pytest
import torch
import yaml
from fairseq.data import Dictionary
from hypothesis import given
from hypothesis import strategies as st

from fbk_xattn.data.config import DataConfig
from fbk_xattn.data.dataset import SpeechToTextCTCDataset
from fbk_xattn.data.features import load_features
from fbk_xattn.data.manifest import ManifestRow
from fbk_xattn.errors import InputError

WORDS = {"src": ["a", "b", "c", "d"], "tgt": ["<lang:en>", "<lang:it>", "u", "v", "w"]}
CMVN = {"*": ["utterance_cmvn"]}


def dictionary(kind):
    made = Dictionary()
    for word in WORDS[kind]:
        made.add_symbol(word)
    return made


class Respell:
    """A tokenizer that can be told apart from none."""

    def encode(self, text):
        return text.replace("X", "a").replace("U", "u")


@pytest.fixture
def make(tmp_path):
    """Make a dataset of utterances ``(frames, transcript, target language, target text)``."""
    rng = np.random.default_rng(0)

    def dataset(*utterances, train=False, collect=False, tokenizers=None, samplers=None, **keys):
        config = {"prepend_tgt_lang_tag": True, "feature_transforms": CMVN, **keys}
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
        rows = []
        for number, (frames, src_text, lang, tgt_text) in enumerate(utterances):
            name = f"{number}.npy"
            np.save(tmp_path / name, 5 + 3 * rng.standard_normal((frames, 80)).astype(np.float32))
            rows.append(
                ManifestRow(f"id{number}", name, frames, "", "en", src_text, lang, tgt_text)
            )
        return SpeechToTextCTCDataset(
            "train" if train else "test",
            rows,
            train,
            DataConfig(tmp_path / "config.yaml"),
            dictionary("tgt"),
            dictionary("src"),
            {"pre": None, "bpe": None, "bpe_src": None, **(tokenizers or {})},
            collect_failures=collect,
            transcripts_as_targets=samplers is not None,
            samplers=samplers,
        )

    return dataset


THREE = [(20, "a b", "it", "u"), (50, "c", "en", "v w v"), (30, "d a c b", "it", "w u")]


def symbols(dictionary, indices):
    return [dictionary[i] for i in indices.tolist()]


def test_item_has_normalised_features_transcript_and_target(make, tmp_path):
    dataset = make(*THREE)
    item = dataset[1]
    raw = load_features(tmp_path / "1.npy").astype(np.float64)
    expected = (raw - raw.mean(axis=0)) / raw.std(axis=0)
    assert item.source.dtype == torch.float32
    np.testing.assert_allclose(item.source.numpy(), expected, atol=2e-4)
    np.testing.assert_allclose(item.source.mean(dim=0), 0, atol=1e-5)
    np.testing.assert_allclose(item.source.std(dim=0, correction=0), 1, atol=1e-3)
    assert symbols(dataset.tgt_dict, item.target) == ["<lang:en>", "v", "w", "v", "</s>"]
    assert symbols(dataset.transcript_dictionary, item.transcript) == ["c", "</s>"]
    assert item.failure is None


def test_without_transforms_features_are_as_stored(make, tmp_path):
    dataset = make(*THREE, feature_transforms={})
    assert np.array_equal(dataset[0].source, load_features(tmp_path / "0.npy"))


def test_without_language_tags_the_target_is_the_text(make):
    dataset = make(*THREE, prepend_tgt_lang_tag=False)
    assert symbols(dataset.tgt_dict, dataset[0].target) == ["u", "</s>"]


def test_training_augments_and_evaluation_does_not(make):
    transforms = {"*": ["utterance_cmvn"], "_train": ["utterance_cmvn", "specaugment"]}
    keys = {
        "feature_transforms": transforms,
        "specaugment": {"freq_mask_F": 27, "freq_mask_N": 2, "mask_value": 0.0},
    }
    evaluation, training = make(*THREE, **keys), make(*THREE, **keys, train=True)
    zero_bins = [(d[1].source == 0).all(dim=0).sum().item() for d in (evaluation, training)]
    assert zero_bins[0] == 0
    assert zero_bins[1] > 0


def test_augmentation_is_a_function_of_seed_epoch_and_utterance(make):
    keys = {
        "feature_transforms": {"*": ["specaugment"]},
        "specaugment": {"freq_mask_F": 27, "freq_mask_N": 2, "mask_value": 0.0},
        "train": True,
    }

    def masks(dataset, index=1):
        return (dataset[index].source == 0).numpy()

    dataset = make(*THREE, **keys)
    before = np.random.get_state()[1].copy()  # noqa: NPY002 - what fairseq's transforms draw from
    first = masks(dataset)
    assert np.array_equal(np.random.get_state()[1], before)  # noqa: NPY002
    np.random.seed(3)  # noqa: NPY002
    assert np.array_equal(masks(dataset), first)
    others = [(dataset.set_epoch(epoch), masks(dataset))[1] for epoch in range(2, 8)]
    assert sum(np.array_equal(other, first) for other in others) < len(others)
    dataset.set_epoch(1)
    assert np.array_equal(masks(dataset), first)
    assert not np.array_equal(masks(dataset, 0)[0], masks(dataset, 2)[0])
    dataset.seed = 2
    assert not np.array_equal(masks(dataset), first)


class Spoken:
    """A sampler that draws one of the words of a text."""

    def encode(self, text, rng):
        return str(rng.choice(text.split()))


def test_sampled_subwords_are_a_function_of_seed_epoch_and_utterance(make):
    text = "u v w " * 30
    utterances = [(20, "a b u v " * 30, "it", text), (20, "a b u v " * 30, "it", text)]
    tokenizers = {"bpe": Respell(), "bpe_src": Respell()}
    dataset = make(*utterances, samplers={"bpe": Spoken(), "bpe_src": Spoken()})
    plain = make(*utterances, tokenizers=tokenizers)
    # What fairseq counts and batches by are the lengths without sampling.
    assert dataset.tgt_lens == plain.tgt_lens

    def drawn(epoch, index=0):
        dataset.set_epoch(epoch)
        item = dataset[index]
        texts = (item.target, item.transcript, item.transcript_as_target)
        return tuple(tuple(each.tolist()) for each in texts)

    first = [drawn(epoch) for epoch in range(1, 20)]
    assert [drawn(epoch) for epoch in range(1, 20)] == first
    assert all(len({each[kind] for each in first}) > 1 for kind in range(3))
    assert [drawn(epoch, 1) for epoch in range(1, 20)] != first
    dataset.seed = 2
    assert [drawn(epoch) for epoch in range(1, 20)] != first


def test_processes_that_load_data_see_the_epoch(make):
    """fairseq keeps them for all of the training, with the dataset as it was at its beginning."""
    keys = {
        "feature_transforms": {"*": ["specaugment"]},
        "specaugment": {"freq_mask_F": 27, "freq_mask_N": 2, "mask_value": 0.0},
        "train": True,
    }
    dataset = make(*THREE, **keys)
    loader = torch.utils.data.DataLoader(
        dataset, batch_size=3, collate_fn=list, num_workers=1, persistent_workers=True
    )
    for epoch in (1, 2):
        dataset.set_epoch(epoch)
        (items,) = list(loader)
        for item in items:
            assert torch.equal(item.source, dataset[item.index].source)


def test_transcript_has_a_subword_model_of_its_own(make):
    dataset = make((20, "X b", "it", "U"), tokenizers={"bpe_src": Respell()})
    assert symbols(dataset.transcript_dictionary, dataset[0].transcript) == ["a", "b", "</s>"]
    assert symbols(dataset.tgt_dict, dataset[0].target) == ["<lang:it>", "<unk>", "</s>"]
    both = make((20, "X b", "it", "U"), tokenizers={"pre": Respell()})
    assert symbols(both.transcript_dictionary, both[0].transcript) == ["a", "b", "</s>"]
    assert symbols(both.tgt_dict, both[0].target) == ["<lang:it>", "u", "</s>"]


def test_unknown_words_do_not_grow_the_vocabulary(make):
    dataset = make((20, "zebra a", "it", "zebra"))
    assert symbols(dataset.transcript_dictionary, dataset[0].transcript) == ["<unk>", "a", "</s>"]
    assert len(dataset.transcript_dictionary) == 4 + len(WORDS["src"])


def test_batch_is_sorted_by_length_and_padded(make):
    dataset = make(*THREE)
    items = [dataset[i] for i in range(3)]
    batch = dataset.collater(items)
    assert batch["id"].tolist() == [1, 2, 0]
    assert batch["nsentences"] == 3
    net_input = batch["net_input"]
    assert net_input["src_lengths"].tolist() == [50, 30, 20]
    assert net_input["src_tokens"].shape == (3, 50, 80)
    for row, index in enumerate(batch["id"].tolist()):
        length = len(items[index].source)
        assert torch.equal(net_input["src_tokens"][row, :length], items[index].source)
        assert not net_input["src_tokens"][row, length:].any()
    tgt = dataset.tgt_dict
    assert [symbols(tgt, row) for row in batch["target"]] == [
        ["<lang:en>", "v", "w", "v", "</s>"],
        ["<lang:it>", "w", "u", "</s>", "<pad>"],
        ["<lang:it>", "u", "</s>", "<pad>", "<pad>"],
    ]
    assert [symbols(tgt, row) for row in net_input["prev_output_tokens"]] == [
        ["</s>", "<lang:en>", "v", "w", "v"],
        ["</s>", "<lang:it>", "w", "u", "<pad>"],
        ["</s>", "<lang:it>", "u", "<pad>", "<pad>"],
    ]
    assert batch["target_lengths"].tolist() == [5, 4, 3]
    assert batch["ntokens"] == 12
    assert "failures" not in batch
    assert "order" not in batch


def test_transcripts_of_a_batch_are_in_its_order(make):
    dataset = make(*THREE)
    transcript = dataset.collater([dataset[i] for i in range(3)])["transcript"]
    assert [symbols(dataset.transcript_dictionary, row) for row in transcript["target"]] == [
        ["c", "</s>", "<pad>", "<pad>", "<pad>"],
        ["d", "a", "c", "b", "</s>"],
        ["a", "b", "</s>", "<pad>", "<pad>"],
    ]
    assert transcript["target_lengths"].tolist() == [2, 5, 3]
    assert transcript["ntokens"] == 10


def test_order_is_kept_on_request(make):
    dataset = make(*THREE)
    batch = dataset.collater([dataset[i] for i in (2, 0, 1)], return_order=True)
    assert batch["order"].tolist() == [2, 0, 1]
    assert batch["id"].tolist() == [1, 2, 0]


def test_empty_batch_of_a_shard_is_empty(make):
    assert make(*THREE).collater([]) == {}


def test_unknown_target_language_is_refused(make):
    with pytest.raises(InputError) as caught:
        make(THREE[0], (20, "a", "fr", "u"))
    assert str(caught.value) == (
        "test, utterance 'id1': no language tag <lang:fr> in the vocabulary, "
        "expected one of: <lang:en>, <lang:it>"
    )
    make((20, "a", "fr", "u"), prepend_tgt_lang_tag=False)


def test_features_that_cannot_be_loaded_are_raised(make, tmp_path):
    dataset = make(*THREE)
    (tmp_path / "2.npy").unlink()
    with pytest.raises(InputError, match=r"^test, utterance 'id2': .*2\.npy: no such file"):
        dataset[2]
    assert dataset[1].failure is None


def test_failures_are_collected_beside_the_others(make, tmp_path):
    dataset = make(*THREE, collect=True)
    (tmp_path / "1.npy").write_bytes(b"")
    batch = dataset.collater([dataset[i] for i in range(3)])
    assert batch["id"].tolist() == [2, 0]
    assert batch["net_input"]["src_tokens"].shape == (2, 30, 80)
    assert batch["transcript"]["target_lengths"].tolist() == [5, 3]
    assert list(batch["failures"]) == ["id1"]
    assert "1.npy: unreadable" in batch["failures"]["id1"]


def overflow(path):
    """Let the features of an utterance be finite, and their squares not."""
    features = np.load(path)
    features[3, 4] = np.finfo(np.float32).min  # what np.nan_to_num makes of log 0
    np.save(path, features)


@pytest.mark.filterwarnings("error")
def test_features_that_overflow_in_a_transform_are_the_failure_of_their_utterance(make, tmp_path):
    dataset = make(*THREE, collect=True)
    overflow(tmp_path / "1.npy")
    batch = dataset.collater([dataset[i] for i in range(3)])
    assert batch["id"].tolist() == [2, 0]
    assert batch["failures"] == {
        "id1": f"{dataset.audio_paths[1]}: features are not finite after utterance_cmvn, expected "
        "smaller values"
    }


def test_features_that_overflow_in_training_are_named(make, tmp_path):
    dataset = make(*THREE, train=True)
    overflow(tmp_path / "2.npy")
    with pytest.raises(InputError, match=r"^train, utterance 'id2': .*not finite after utterance_"):
        dataset[2]


@pytest.mark.parametrize(
    ("told", "frames", "fits"),
    [(20, 25, True), (20, 26, False), (20, 14, False), (1000, 1020, True), (1000, 979, False)],
)
def test_features_far_from_the_length_of_the_manifest_are_a_failure(
    make, tmp_path, told, frames, fits
):
    dataset = make(THREE[0], (told, "c", "en", "v"), collect=True)
    np.save(tmp_path / "1.npy", np.random.default_rng(1).standard_normal((frames, 80)))
    assert (dataset[1].failure is None) == fits
    if not fits:
        assert dataset[1].failure == (
            f"{dataset.audio_paths[1]}: {frames} frames, but n_frames of the manifest is {told}, "
            f"expected them to differ by at most {max(5, told // 50)}"
        )
    assert dataset[0].failure is None


def test_batch_of_failures_alone_has_nothing_else(make, tmp_path):
    dataset = make(THREE[0], collect=True)
    (tmp_path / "0.npy").unlink()
    batch = dataset.collater([dataset[0]])
    assert list(batch) == ["failures"]


@given(
    lengths=st.lists(st.integers(1, 60), max_size=40),
    max_sentences=st.integers(1, 12),
    multiple=st.integers(1, 9),
)
def test_every_utterance_is_in_one_batch(lengths, max_sentences, multiple):
    class Lengths(SpeechToTextCTCDataset):
        def __init__(self):
            self.n_frames = lengths

    indices = np.argsort(np.negative(lengths), kind="stable").astype(np.int64)
    batches = Lengths().batch_by_size(
        indices, max_tokens=200, max_sentences=max_sentences, required_batch_size_multiple=multiple
    )
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    for batch in batches:
        assert 1 <= len(batch) <= max_sentences
        assert len(batch) * max(lengths[i] for i in batch) <= 200
