"""The model that ``examples/prompts/run.sh`` explains is whole, small, and fits its vocabulary."""

import hashlib

import pytest
import torch
from fairseq.checkpoint_utils import load_model_ensemble_and_task
from shipped_model import MODEL, join_model

from examples.prompts.train.ship import DATA_FILES, PART
from fbk_xattn.checkpoints import load_checkpoint


@pytest.fixture(scope="module")
def joined(tmp_path_factory):
    """The model, joined."""
    return join_model(tmp_path_factory.mktemp("model"))


def test_parts_are_small_and_join_to_what_the_checksum_says(joined):
    assert all(part.stat().st_size <= PART for part in MODEL.glob("model.pt.*"))
    digest = hashlib.sha256(joined.read_bytes()).hexdigest()
    assert (MODEL / "SHA256SUMS").read_text() == f"{digest}  model.pt\n"


def test_weights_are_in_half_precision(joined):
    checkpoint = load_checkpoint(joined)
    kinds = {weight.dtype for weight in checkpoint["model"].values()}
    assert kinds <= {torch.float16, torch.int64}
    assert not checkpoint["last_optimizer_state"]


def test_fairseq_loads_it_with_its_vocabulary(joined):
    assert {file.name for file in MODEL.iterdir()} >= set(DATA_FILES)
    (model,), _, task = load_model_ensemble_and_task([str(joined)], {"data": str(MODEL)})
    assert model.decoder.embed_tokens.num_embeddings == len(task.target_dictionary)
    for tag in ("<lang:en>", "<lang:it>"):
        assert task.target_dictionary.index(tag) != task.target_dictionary.unk()
    parameters = sum(each.numel() for each in model.parameters())
    assert 11e6 < parameters < 12e6
