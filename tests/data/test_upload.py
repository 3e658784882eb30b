"""A batch on the device; tests/test_devices.py counts its copies."""

import torch

from retinanet.data.upload import packed_copies


def test_tensors_packed_for_one_copy_keep_values_shapes_and_types() -> None:
    whole = [torch.tensor([[3, 4], [-5, 6]]), torch.zeros(0, dtype=torch.int64), torch.tensor([2**40])]
    given = [*whole, torch.tensor([[0.5, -1.5, 2.0, 3.0]]), torch.zeros(0, 4), torch.rand(3, 4).T[:, 1:]]
    copies = packed_copies(given, torch.device("cpu"))
    assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(copies, given, strict=True))
    assert len({copied.untyped_storage().data_ptr() for copied in copies}) == 1
