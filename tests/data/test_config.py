from pathlib import Path

import pytest
import yaml

from fbk_xattn.data.config import SPECAUGMENT_KEYS, DataConfig, load_dictionary
from fbk_xattn.errors import InputError


@pytest.fixture
def config(tmp_path):
    """Write a config of these keys (or this text) and read it."""

    def read(text=None, **keys):
        path = tmp_path / "config.yaml"
        path.write_text(yaml.safe_dump(keys) if text is None else text, encoding="utf-8")
        return DataConfig(path)

    return read


def refusal(read, *args, **keys):
    """Return the one-line message with which a config is refused; it names the file."""
    with pytest.raises(InputError) as caught:
        read(*args, **keys)
    assert "config.yaml: " in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_missing_config_is_named(tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.yaml: no such data config \(--config-yaml\)"):
        DataConfig(tmp_path / "nowhere.yaml")


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "just words", "3"])
def test_config_that_is_no_mapping_is_refused(config, text):
    assert "expected a mapping" in refusal(config, text)


def test_config_that_is_no_yaml_is_refused(config):
    assert "unreadable" in refusal(config, "a: [1, 2\nb: }")


def test_config_cannot_run_code(config, tmp_path):
    marker = tmp_path / "ran"
    text = f"vocab_filename: !!python/object/apply:os.system ['touch {marker}']\n"
    assert "unreadable" in refusal(config, text)
    assert not marker.exists()


@pytest.mark.parametrize("key", ["time_warp", "freq_mask_f", "W"])
def test_unknown_specaugment_key_is_refused(config, key):
    message = refusal(config, specaugment={"freq_mask_N": 1, key: 3})
    assert f"unknown specaugment key {key}, expected freq_mask_F" in message


def test_all_known_specaugment_keys_are_accepted(config):
    keys = dict.fromkeys(SPECAUGMENT_KEYS, 1)
    assert config(specaugment=keys).config["specaugment"] == keys


def test_empty_specaugment_is_accepted(config):
    assert not config("specaugment:\n").config["specaugment"]


def test_specaugment_that_is_no_mapping_is_refused(config):
    assert "specaugment is ld, expected a mapping" in refusal(config, "specaugment: ld\n")


@pytest.mark.parametrize("key", ["bpe_tokenizer", "bpe_tokenizer_src"])
def test_sampling_in_every_split_is_refused(config, key):
    sentencepiece = {"bpe": "sentencepiece", "sentencepiece_model": "spm.model"}
    assert config(**{key: sentencepiece}) is not None
    message = refusal(config, **{key: {**sentencepiece, "sentencepiece_enable_sampling": True}})
    assert f"{key} has sentencepiece_enable_sampling" in message
    assert "--subword-regularization samples in training alone" in message


def test_the_published_name_of_time_warping_is_read_as_fairseqs(config):
    specaugment = config(specaugment={"time_wrap_W": 5, "freq_mask_N": 1}).config["specaugment"]
    assert specaugment == {"time_warp_W": 5, "freq_mask_N": 1}


def test_time_warping_reaches_the_transform_under_its_published_name(config):
    from fairseq.data.audio.feature_transforms import CompositeAudioFeatureTransform

    read = config(
        specaugment={"time_wrap_W": 5}, feature_transforms={"_train": ["specaugment"]}
    ).get_feature_transforms("train", is_train=True)
    (transform,) = CompositeAudioFeatureTransform.from_config_dict(read).transforms
    assert transform.time_warp_w == 5


@pytest.mark.parametrize("kind", ["waveform_transforms", "dataset_transforms"])
def test_unsupported_transforms_are_refused(config, kind):
    assert f"{kind} are not supported" in refusal(config, **{kind: {"_train": ["noiseaugment"]}})
    assert config(**{kind: {}}).config == {kind: {}}


@pytest.mark.parametrize("kind", ["transforms", "feature_transforms"])
def test_misspelt_feature_transform_is_refused(config, kind):
    keys = {kind: {"*": ["utterance_cmvn"], "_train": ["utterance_cmnv"]}}
    message = refusal(config, **keys)
    assert f"unknown feature transform utterance_cmnv under {kind}" in message
    assert "utterance_cmvn" in message.partition("expected")[2]


@pytest.mark.parametrize("value", [["utterance_cmvn"], {"*": "utterance_cmvn"}])
def test_feature_transforms_in_another_form_are_refused(config, value):
    message = refusal(config, feature_transforms=value)
    assert "feature_transforms" in message
    assert "expected lists of names" in message


def test_both_names_of_feature_transforms_are_accepted(config):
    names = {"*": ["utterance_cmvn"], "_train": ["utterance_cmvn", "specaugment"], "x": None}
    for kind in ("transforms", "feature_transforms"):
        read = config(**{kind: names}).get_feature_transforms("train", is_train=True)
        assert read["feature_transforms"] == names["_train"]


def test_vocabulary_of_transcripts_defaults_to_that_of_targets(config):
    plain = config(vocab_filename="t.txt", bpe_tokenizer={"bpe": "characters"})
    assert plain.vocab_filename_src == "t.txt"
    assert plain.bpe_tokenizer_src == {"bpe": "characters"}
    own = config(
        vocab_filename="t.txt",
        vocab_filename_src="s.txt",
        bpe_tokenizer={"bpe": "characters"},
        bpe_tokenizer_src={"bpe": "bytes"},
    )
    assert own.vocab_filename_src == "s.txt"
    assert own.bpe_tokenizer_src == {"bpe": "bytes"}


def test_subword_model_of_transcripts_is_found_beside_the_config(config, tmp_path):
    (tmp_path / "s.model").touch()
    read = config(bpe_tokenizer_src={"bpe": "sentencepiece", "sentencepiece_model": "s.model"})
    assert read.bpe_tokenizer_src["sentencepiece_model"] == f"{tmp_path}/s.model"


@pytest.fixture
def cwd(tmp_path, monkeypatch):
    """Work in a folder that is not the config's."""
    folder = tmp_path / "cwd"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


@pytest.mark.parametrize("root", ["", ".", "wav"])
@pytest.mark.parametrize(("audio", "file"), [("x/a.wav", "x/a.wav"), ("f.zip:3:9", "f.zip")])
def test_audio_is_found_from_the_folder_of_the_config_first(
    config, tmp_path, cwd, root, audio, file
):
    read = config(audio_root=root)
    touch(cwd / root / file)
    assert (cwd / read.resolve_audio(audio)).resolve() == cwd / root / audio
    touch(tmp_path / root / file)
    assert Path(read.resolve_audio(audio)) == tmp_path / root / audio


def test_absolute_audio_stays(config, tmp_path, cwd):
    touch(cwd / "a.wav")
    assert config(audio_root="wav").resolve_audio("/data/a.wav") == "/data/a.wav"
    assert config(audio_root=f"{tmp_path}/b").resolve_audio("a.wav") == f"{tmp_path}/b/a.wav"


@pytest.mark.usefixtures("cwd")
def test_audio_found_nowhere_is_reported_as_written(config):
    assert config(audio_root="wav").resolve_audio("a.wav") == "wav/a.wav"


@pytest.mark.usefixtures("cwd")
def test_audio_that_cannot_be_looked_for_is_reported_as_written(config):
    """Its own utterance fails, not the data set."""
    assert config(audio_root="").resolve_audio("a" * 300) == "a" * 300


def test_dictionary_is_loaded(tmp_path):
    (tmp_path / "dict.txt").write_text("<lang:it> 1\n▁è 5\n", encoding="utf-8")
    dictionary = load_dictionary(tmp_path / "dict.txt")
    assert dictionary.symbols == ["<s>", "<pad>", "</s>", "<unk>", "<lang:it>", "▁è"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"a 1\nb\n", "unreadable"),
        (b"a one\n", "unreadable"),
        (b"a 1\na 1\n", "Duplicate"),
        ("è 1\n".encode("latin-1"), "encoding"),
    ],
)
def test_wrong_dictionary_is_refused(tmp_path, content, reason):
    path = tmp_path / "dict.txt"
    path.write_bytes(content)
    with pytest.raises(InputError, match=reason) as caught:
        load_dictionary(path)
    assert str(path) in str(caught.value)


def test_missing_dictionary_is_named(tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.txt: no such vocabulary"):
        load_dictionary(tmp_path / "nowhere.txt")
