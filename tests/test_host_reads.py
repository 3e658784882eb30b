"""The noting of host reads that other tests rely on."""

import torch
from host_reads import HostReads


def test_host_reads_are_noted() -> None:
    values = torch.arange(4.0)
    with HostReads() as reads:
        values[values > 1] = 0.0
        bool(values[values > 1].sum() > 0)
        torch.where(values > 1, values, 0.0).clone().tolist()
        torch.tensor([1.0, 2.0], device=values.device).cpu()
        torch.tensor([1.0, 2.0]).to(values.device, non_blocking=True)
    assert reads.found == ["index_put_", "index", "_local_scalar_dense", "tolist", "tensor", "cpu"]


def test_those_of_a_backward_pass_are_noted_too() -> None:
    leaf = torch.ones(3, requires_grad=True)
    leaf.register_hook(lambda gradient: gradient * float(gradient.sum()))
    with HostReads() as reads:
        (leaf * 2).sum().backward()
    assert reads.found == ["_local_scalar_dense"]


def test_the_hosts_own_tensors_are_read_for_free() -> None:
    values = torch.arange(4.0)
    with HostReads() as reads:
        copied = values.cpu()
        copied[copied > 1].nonzero().tolist()
        made = torch.tensor([1.0, 2.0])
        assert made.sum().item() == 3.0
        bool((made.to(values.device, non_blocking=True) > 1).any())
        bool((copied + values).any())
    assert reads.found == ["cpu", "_local_scalar_dense", "_local_scalar_dense"]
