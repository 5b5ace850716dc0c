"""Converts between proto ``Tensor`` and torch, in the tensor's own dtype: bfloat16 is sent as
bfloat16."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from dualprocess import tensors
from dualprocess.errors import TensorError
from dualprocess.v1 import tensor_pb2
from services.common.presets import DtypeName

DTYPES: dict[tensor_pb2.Dtype.ValueType, torch.dtype] = {
    tensor_pb2.DTYPE_FLOAT32: torch.float32,
    tensor_pb2.DTYPE_FLOAT16: torch.float16,
    tensor_pb2.DTYPE_BFLOAT16: torch.bfloat16,
}
DTYPES_BY_NAME: dict[DtypeName, torch.dtype] = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}
WIRE_DTYPES = {dtype: wire for wire, dtype in DTYPES.items()}


def to_proto(tensor: torch.Tensor) -> tensor_pb2.Tensor:
    """Packs a floating-point tensor of any device. Raises ``TensorError`` for another dtype."""
    if tensor.dtype not in WIRE_DTYPES:
        raise TensorError(f"{tensor.dtype} can't be sent: use float32, float16 or bfloat16")
    wire = WIRE_DTYPES[tensor.dtype]
    host = _on_host(tensor.detach())
    return tensors.to_proto(_bits(host).numpy(), wire)


def is_finite(tensor: tensor_pb2.Tensor) -> bool:
    """Whether no value of a tensor that ``to_proto`` made is NaN or infinite."""
    return tensors.is_finite(tensors.from_proto(tensor, name="tensor"), tensor.dtype)


def from_proto(
    tensor: tensor_pb2.Tensor,
    *,
    name: str,
    shape: Sequence[int | None] | None = None,
    device: torch.device | None = None,
) -> torch.Tensor:
    """Unpacks into a CPU tensor of its own memory; pinned, if it is to go to a CUDA ``device``.

    Raises ``TensorError`` as ``dualprocess.tensors.from_proto`` does, and for a value that is
    not finite.
    """
    array = tensors.from_proto(tensor, name=name, shape=shape)
    if not tensors.is_finite(array, tensor.dtype):
        raise TensorError(f"{name}: holds NaN or infinity; every value must be finite")
    if device is None or device.type != "cuda":
        return torch.from_numpy(np.array(array)).view(DTYPES[tensor.dtype])
    host = torch.empty(array.shape, dtype=DTYPES[tensor.dtype], pin_memory=True)
    np.copyto(_bits(host).numpy(), array)
    return host


def _on_host(tensor: torch.Tensor) -> torch.Tensor:
    if tensor.device.type == "cuda":
        return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True).copy_(tensor)
    return tensor.to("cpu").contiguous()


def _bits(host: torch.Tensor) -> torch.Tensor:
    """The tensor as numpy knows it: numpy has no bfloat16."""
    return host.view(torch.uint16) if host.dtype == torch.bfloat16 else host
