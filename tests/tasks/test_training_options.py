"""What the flags of training that say what an epoch holds do to it."""

import pytest
from fairseq_runs import run_train

from fbk_xattn.data.dataset import SpeechToTextCTCDataset
from fbk_xattn.errors import InputError


@pytest.fixture
def loaded_texts(monkeypatch):
    """Target and transcript of each loading, by split and utterance."""
    texts: dict[tuple[str, str], set[tuple[int, ...]]] = {}
    load = SpeechToTextCTCDataset.__getitem__

    def noted(self, index):
        item = load(self, index)
        of_utterance = texts.setdefault((self.split, self.ids[index]), set())
        of_utterance.add((*item.target.tolist(), -1, *item.transcript.tolist()))
        return item

    monkeypatch.setattr(SpeechToTextCTCDataset, "__getitem__", noted)
    return texts


def test_subword_regularization_is_for_training_alone(data, tmp_path, loaded_texts):
    flags = ("--subword-regularization", "0.1", "--max-update", "40", "--max-epoch", "4")
    run_train(data, tmp_path / "save", *flags)
    different = {split: [] for split in ("train", "dev")}
    for (split, _), texts in loaded_texts.items():
        different[split].append(len(texts))
    assert set(different["dev"]) == {1}
    assert max(different["train"]) > 2


@pytest.mark.parametrize("alpha", ["-0.1", "nan", "inf"])
def test_a_wrong_subword_regularization_is_refused(data, tmp_path, alpha):
    flag = f"--subword-regularization={alpha}"
    message = rf"^--subword-regularization {alpha}: expected a number from 0$"
    with pytest.raises(InputError, match=message):
        run_train(data, tmp_path, flag)
