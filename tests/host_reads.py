"""What in a piece of work would make a host wait for a GPU, found out without one."""

from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode


class HostReads(TorchFunctionMode):
    """Notes what makes a host wait for a GPU: values that it wants to know, shapes that depend on values, and Python's
    numbers made into a tensor there at once. Not seen: `Tensor.to` another device, which waits unless `non_blocking`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        sent = func in (torch.tensor, torch.as_tensor) and not isinstance(args[0], torch.Tensor)
        if func in (torch.Tensor.tolist, torch.Tensor.numpy, torch.Tensor.cpu) or (
            sent and (kwargs or {}).get("device")
        ):
            self.found.append(func.__name__)
        with WaitingOperators(self.found):
            return func(*args, **(kwargs or {}))


class WaitingOperators(TorchDispatchMode):
    """The same among torch's own operators, whoever calls them."""

    WAITING = frozenset({"_local_scalar_dense", "nonzero", "masked_select", "equal", "_unique2", "is_nonzero", "nms"})
    BY_MASK = frozenset({"index", "index_put", "index_put_", "_index_put_impl_"})

    def __init__(self, found: list[str]) -> None:
        super().__init__()
        self.found = found

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        masks = name in self.BY_MASK and any(i is not None and i.dtype in (torch.bool, torch.uint8) for i in args[1])
        if name in self.WAITING or masks:
            self.found.append(name)
        return func(*args, **(kwargs or {}))
