import contextlib
import socket

import pytest
import torch
from torch import distributed, multiprocessing, nn

from fbk_xattn.models.batch_norm import SynchronisedBatchNorm

CHANNELS = 5
SIZES = (7, 4)


def free_port():
    with contextlib.closing(socket.socket()) as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def data():
    """Return the input, far from zero, and a gradient of the output, of all processes."""
    generator = torch.Generator().manual_seed(3)
    x = 100 + torch.randn(sum(SIZES), CHANNELS, generator=generator)
    return x, torch.randn(sum(SIZES), CHANNELS, generator=generator)


def norm(kind):
    module = kind(CHANNELS)
    with torch.no_grad():
        module.weight.copy_(torch.arange(1.0, CHANNELS + 1))
        module.bias.copy_(torch.arange(CHANNELS) / 10)
    return module


def run(module, x, upstream):
    """Return output, gradients and running statistics after two batches."""
    x = x.clone().requires_grad_()
    module(x)
    out = module(x)
    gradients = torch.autograd.grad(out, (x, module.weight, module.bias), upstream)
    return [out.detach(), *gradients, module.running_mean, module.running_var]


def process(rank, port, results):
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{port}", world_size=len(SIZES), rank=rank
    )
    x, upstream = (t.split(SIZES)[rank] for t in data())
    results[rank] = [t.numpy() for t in run(norm(SynchronisedBatchNorm), x, upstream)]
    distributed.destroy_process_group()


def test_processes_together_normalise_as_one_with_all_their_data():
    with multiprocessing.Manager() as manager:
        results = manager.dict()
        multiprocessing.spawn(process, (free_port(), results), nprocs=len(SIZES))
        parts = [[torch.from_numpy(a) for a in results[rank]] for rank in range(len(SIZES))]
    out, by_x, by_weight, by_bias, mean, variance = run(norm(nn.BatchNorm1d), *data())
    close = {"atol": 1e-4, "rtol": 1e-4}
    torch.testing.assert_close(torch.cat([part[0] for part in parts]), out, **close)
    torch.testing.assert_close(torch.cat([part[1] for part in parts]), by_x, **close)
    # Gradients of weights are of each process's own data; the trainer adds them up.
    torch.testing.assert_close(sum(part[2] for part in parts), by_weight, **close)
    torch.testing.assert_close(sum(part[3] for part in parts), by_bias, **close)
    for part in parts:
        torch.testing.assert_close(part[4], mean, **close)
        torch.testing.assert_close(part[5], variance, **close)


@pytest.mark.parametrize("train", [False, True])
def test_a_process_alone_normalises_as_usual(train):
    plain, synchronised = norm(nn.BatchNorm1d), norm(SynchronisedBatchNorm)
    for a, b in zip(
        run(plain.train(train), *data()), run(synchronised.train(train), *data()), strict=True
    ):
        assert torch.equal(a, b)
    assert plain.state_dict().keys() == synchronised.state_dict().keys()
