"""The kernels of the CTC loss, in Triton's interpreter."""

import pytest
import torch
from interpreted import addresses, kernels  # noqa: F401

(cuda,) = kernels("fbk_xattn.criterions.cuda")
pytestmark = pytest.mark.usefixtures("addresses")


@pytest.mark.parametrize("n_symbols", [9, 300])
def test_log_probabilities_and_gradients_at_some_columns(n_symbols):
    torch.manual_seed(0)
    logits = torch.randn(6, 2, n_symbols + 3)[..., :n_symbols]
    columns = torch.tensor([[n_symbols - 1, 2, 5], [n_symbols - 1, 3, 3]])
    log_probs, normalisers = cuda.log_probs_of_columns(logits, columns)
    everywhere = logits.log_softmax(dim=-1)
    index = columns.expand(6, -1, -1)
    torch.testing.assert_close(normalisers, logits.logsumexp(dim=-1))
    torch.testing.assert_close(log_probs, everywhere.gather(2, index))
    elsewhere, on_columns = torch.randn(6, 2), torch.randn(6, 2, 3)
    on_columns[:, 1, 2] = on_columns[:, 1, 1]
    result = cuda.gradient_by_logits(logits, columns, normalisers, elsewhere, on_columns)
    expected = everywhere.exp() * elsewhere.unsqueeze(2)
    torch.testing.assert_close(result, expected.scatter(2, index, on_columns))
