"""What in a piece of work would make a host wait for a GPU, found out without one."""

from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class HostReads(TorchFunctionMode):
    """Notes what makes a host wait for a GPU: values that it wants to know, shapes that depend on values, and Python's
    numbers made into a tensor there at once. Not seen: `Tensor.to` another device, which waits unless `non_blocking`.

    Tensors that the host has copied to itself or made without a device are its own, as is what it computes from these
    alone: reading them is free.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors = [value for value in tree_leaves((args, kwargs)) if isinstance(value, torch.Tensor)]
        of_host = all(getattr(tensor, "of_host", False) for tensor in tensors)
        if of_host and (tensors or not kwargs.get("device")):
            result = func(*args, **kwargs)
            if func is torch.Tensor.to and any(isinstance(value, torch.device) for value in args[1:]):
                return result.view_as(result)
            return own(result)
        sent = func in (torch.tensor, torch.as_tensor) and not isinstance(args[0], torch.Tensor)
        if func in (torch.Tensor.tolist, torch.Tensor.numpy, torch.Tensor.cpu) or (sent and kwargs.get("device")):
            self.found.append(func.__name__)
        with WaitingOperators(self.found):
            result = func(*args, **kwargs)
        return own(result.clone()) if func is torch.Tensor.cpu else result


def own(result: Any) -> Any:
    """The result of an operator, marked as the host's own."""
    for value in tree_leaves(result):
        if isinstance(value, torch.Tensor):
            value.of_host = True  # type: ignore[attr-defined]
    return result


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


class Operators(TorchDispatchMode):
    """The names of torch's operators that are called, each one or more kernel launches on a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))
