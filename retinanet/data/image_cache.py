"""Images that need not be decoded again: memory with a bound, shared by the threads of a loader."""

from collections.abc import Callable, Hashable
from threading import Lock

from torch import Tensor

MIB = 2**20


class ImageCache:
    """Keeps images until it is full, and then those: an epoch comes back to every image, so one is worth as much as
    another, while a cache of the latest would have thrown each away just before its turn. Of several ranks, each meets
    another part of the images in every epoch, and in the end all of them.
    """

    def __init__(self, mib: int) -> None:
        """mib: bound of the pixels kept, in MiB; 0 keeps nothing."""
        self._free = mib * MIB
        self._kept: dict[Hashable, Tensor] = {}
        self._lock = Lock()

    def get(self, key: Hashable, make: Callable[[], Tensor]) -> Tensor:
        """The image of `key`, from `make` where it is not kept. Callers must not write into it."""
        image = self._kept.get(key)
        if image is None:
            image = make()
            with self._lock:
                if key not in self._kept and image.nbytes <= self._free:
                    self._kept[key] = image
                    self._free -= image.nbytes
        return image
