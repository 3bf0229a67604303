"""The KL divergence in one kernel, in Triton's interpreter."""

import pytest
import torch
from interpreted import addresses, kernels  # noqa: F401

(cuda,) = kernels("fbk_xattn.explain.cuda")
pytestmark = pytest.mark.usefixtures("addresses")


def expected(log_p, logits):
    log_q = logits.float().log_softmax(dim=-1)
    return (log_p.exp() * (log_p - log_q)).sum(dim=-1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize(("n_copies", "n_tokens", "n_symbols"), [(1, 1, 2), (3, 4, 50)])
def test_divergence(dtype, n_copies, n_tokens, n_symbols):
    torch.manual_seed(0)
    log_p = torch.randn(n_tokens, n_symbols).log_softmax(dim=-1)
    logits = torch.randn(n_tokens, n_copies, n_symbols + 3).to(dtype)[..., :n_symbols]
    logits = logits.transpose(0, 1)
    torch.testing.assert_close(cuda.divergence(log_p, logits), expected(log_p, logits))


def test_divergence_of_more_logits_than_32_bits_count():
    torch.manual_seed(0)
    log_p = torch.randn(3, 50).log_softmax(dim=-1)
    step = 1 << 30  # the third token begins at number 2^31
    # Memory that nobody writes to takes no room.
    logits = torch.empty(2 * step + 50, dtype=torch.float16)
    logits = logits.as_strided((1, 3, 50), (50, step, 1)).copy_(torch.randn(1, 3, 50))
    torch.testing.assert_close(cuda.divergence(log_p, logits), expected(log_p, logits))
