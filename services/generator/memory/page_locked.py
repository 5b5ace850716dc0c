"""Memory of the host that a GPU reads at the bus's full speed."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Iterable

import torch
from torch._subclasses.fake_tensor import FakeTensor

log = logging.getLogger(__name__)

#: Each tensor begins at a multiple of this.
_ALIGNMENT = 512


class HostMemory:
    """Takes tensors of these sizes in bytes: for CUDA into one page-locked buffer, else as they
    are. One buffer, since torch's own page-locked memory is rounded up to powers of two."""

    def __init__(self, sizes: Iterable[int], device: torch.device) -> None:
        self._left = torch.empty(0, dtype=torch.uint8)
        if device.type == "cuda" and torch.cuda.is_available():
            self._left = _page_locked(sum(map(_aligned, sizes)))

    def take(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor in the host's memory."""
        if not len(self._left) or isinstance(tensor, FakeTensor):
            return tensor.to("cpu")
        place, self._left = self._left.tensor_split([_aligned(tensor.nbytes)])
        flat = place[: tensor.nbytes].view(tensor.dtype)
        return flat.view(tensor.shape).copy_(tensor.detach())


def _aligned(nbytes: int) -> int:
    return -(-nbytes // _ALIGNMENT) * _ALIGNMENT


def _page_locked(nbytes: int) -> torch.Tensor:
    buffer = torch.empty(nbytes, dtype=torch.uint8)
    runtime = torch.cuda.cudart()  # type: ignore[no-untyped-call]
    if nbytes and int(runtime.cudaHostRegister(buffer.data_ptr(), nbytes, 0)) != 0:
        log.warning(
            "%.1f GB of the host's memory can't be page-locked, so weights come to the device more "
            "slowly: raise the limit of locked memory (ulimit -l)",
            nbytes / 1e9,
        )
        return buffer
    storage = buffer.untyped_storage()
    unlock = weakref.finalize(storage, runtime.cudaHostUnregister, buffer.data_ptr())
    # At the process's end the driver may be gone before.
    unlock.atexit = False
    return buffer
