import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from fbk_xattn.criterions.ctc import count_unalignable, ctc_loss

BLANK = 5


@st.composite
def batches(draw):
    """Targets with repeats, some longer than their utterance, padded with symbol 1."""
    utterances = draw(
        st.lists(
            st.tuples(st.integers(1, 9), st.lists(st.sampled_from([0, 2, 3, 4]), max_size=6)),
            min_size=1,
            max_size=4,
        )
    )
    lengths = torch.tensor([n for n, _ in utterances])
    target_lengths = torch.tensor([len(target) for _, target in utterances])
    targets = torch.ones(len(utterances), int(target_lengths.max()), dtype=torch.long)
    for row, (_, target) in enumerate(utterances):
        targets[row, : len(target)] = torch.tensor(target, dtype=torch.long)
    return lengths, targets, target_lengths


def plain(logits, lengths, targets, target_lengths):
    """Return torch's own loss on the whole log-softmax."""
    return functional.ctc_loss(
        logits.log_softmax(-1),
        targets,
        lengths,
        target_lengths,
        BLANK,
        reduction="sum",
        zero_infinity=True,
    )


@given(batches(), st.integers(0, 2), st.floats(0.1, 3))
def test_loss_and_gradient_are_those_of_the_whole_log_softmax(batch, padding, scale):
    logits = 3 * torch.randn(int(batch[0].max()) + padding, len(batch[0]), 6).double()
    logits.requires_grad_()
    expected = scale * plain(logits, *batch)
    (by_expected,) = torch.autograd.grad(expected, logits)
    loss = scale * ctc_loss(logits, *batch, BLANK)
    (by_loss,) = torch.autograd.grad(loss, logits)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(by_loss, by_expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_loses_no_more_than_its_input_did(dtype):
    torch.manual_seed(0)
    batch = (torch.tensor([40, 31]), torch.randint(0, 5, (2, 9)), torch.tensor([9, 5]))
    logits = (5 * torch.randn(40, 2, 6)).to(dtype)
    # An utterance that the model has all but learnt: its gradient is what half precision rounds.
    logits[:, 0, BLANK] += 4
    exact = logits.double().requires_grad_()
    rounded = logits.clone().requires_grad_()
    expected, loss = plain(exact, *batch), ctc_loss(rounded, *batch, BLANK)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    (by_expected,) = torch.autograd.grad(expected, exact)
    (by_loss,) = torch.autograd.grad(loss, rounded)
    assert by_loss.dtype == dtype
    epsilon = torch.finfo(dtype).eps
    torch.testing.assert_close(by_loss.double(), by_expected, rtol=2 * epsilon, atol=1e-3 * epsilon)


@given(batches())
def test_utterances_without_an_alignment_are_counted(batch):
    lengths, targets, target_lengths = batch
    losses = functional.ctc_loss(
        torch.randn(int(lengths.max()), len(lengths), 6).double().log_softmax(-1),
        targets,
        lengths,
        target_lengths,
        BLANK,
        reduction="none",
    )
    assert count_unalignable(*batch) == losses.isinf().sum()
