"""Tells errors of a broken device from errors of the code that ran on it."""

from __future__ import annotations

from collections.abc import Iterator

import torch

#: These are in messages of torch and of CUDA's libraries. After most of these errors this process
#: can't use the device any more.
_BROKEN = (
    "CUDA error",
    "CUDA driver error",
    "CUDA_ERROR_",
    "cuDNN error",
    "CUDNN_STATUS_",
    "CUBLAS_STATUS_",
    "CUSOLVER_STATUS_",
    "CUSPARSE_STATUS_",
    "CUFFT_",
    "NCCL error",
    "NVML",
    "HIP error",
    "ECC error",
    "device-side assert",
)
_FULL = ("out of memory", "_ALLOC_FAILED")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the call needed more memory than there is. Smaller calls still work then."""
    return any(
        isinstance(one, torch.OutOfMemoryError)
        or (_is_of_device(one) and any(sign in str(one) for sign in _FULL))
        for one in _chain(error)
    )


def is_device_error(error: BaseException) -> bool:
    return not is_out_of_memory(error) and any(map(_is_of_device, _chain(error)))


def _is_of_device(error: BaseException) -> bool:
    if isinstance(error, torch.AcceleratorError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _BROKEN)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error, and the errors that caused it."""
    seen = set[int]()
    step: BaseException | None = error
    while step is not None and id(step) not in seen:
        seen.add(id(step))
        yield step
        step = step.__cause__ or step.__context__
