"""Converts between proto ``Tensor`` and numpy, with every check of dtype, shape and size.

numpy has no bfloat16, so its bits are kept as uint16; only ``services.common.torch_tensors`` reads
them as bfloat16.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dualprocess.errors import TensorError
from dualprocess.v1 import tensor_pb2

MAX_DIMENSIONS = 8

#: What each wire dtype is in numpy, little-endian.
NUMPY_DTYPES: dict[tensor_pb2.Dtype.ValueType, np.dtype[np.generic]] = {
    tensor_pb2.DTYPE_FLOAT32: np.dtype("<f4"),
    tensor_pb2.DTYPE_FLOAT16: np.dtype("<f2"),
    tensor_pb2.DTYPE_BFLOAT16: np.dtype("<u2"),
}

#: The bits of infinity: those of NaN, without the sign, are larger.
_INFINITY: dict[tensor_pb2.Dtype.ValueType, int] = {
    tensor_pb2.DTYPE_FLOAT32: 0x7F800000,
    tensor_pb2.DTYPE_FLOAT16: 0x7C00,
    tensor_pb2.DTYPE_BFLOAT16: 0x7F80,
}


def to_proto(array: NDArray[np.generic], dtype: tensor_pb2.Dtype.ValueType) -> tensor_pb2.Tensor:
    """Packs ``array`` as ``dtype``.

    ``array`` must have the numpy dtype that ``NUMPY_DTYPES`` gives for ``dtype`` (uint16 bits
    for bfloat16); nothing is converted. Raises ``TensorError`` otherwise.
    """
    expected = NUMPY_DTYPES.get(dtype)
    if expected is None:
        raise TensorError(f"dtype {dtype} can't be sent: use float32, float16 or bfloat16")
    if array.dtype != expected:
        raise TensorError(f"{_name(dtype)} needs a numpy array of {expected}, not {array.dtype}")
    return tensor_pb2.Tensor(
        dtype=dtype, shape=array.shape, data=np.ascontiguousarray(array).tobytes()
    )


def from_proto(
    tensor: tensor_pb2.Tensor, *, name: str, shape: Sequence[int | None] | None = None
) -> NDArray[np.generic]:
    """Unpacks ``tensor`` into a read-only array that shares its bytes.

    ``shape`` is what the caller expects, ``None`` for a dimension of any size. Raises
    ``TensorError``, whose message begins with ``name``, if the dtype is unknown, a size is not
    positive, the shape is a different one, or the data has not exactly the bytes it needs.
    """
    dtype = NUMPY_DTYPES.get(tensor.dtype)
    if dtype is None:
        raise TensorError(
            f"{name}: dtype {tensor.dtype} is unknown: send DTYPE_FLOAT32, DTYPE_FLOAT16 "
            "or DTYPE_BFLOAT16"
        )
    got = tuple(tensor.shape)
    if len(got) > MAX_DIMENSIONS or any(size <= 0 for size in got):
        raise TensorError(
            f"{name}: shape {list(got)[: MAX_DIMENSIONS + 1]} must have at most "
            f"{MAX_DIMENSIONS} sizes, all positive"
        )
    if shape is not None and not _fits(got, shape):
        wanted = ", ".join("any" if size is None else str(size) for size in shape)
        raise TensorError(f"{name}: shape {list(got)} is not [{wanted}]")
    # Python integers, so that no shape can overflow.
    needed = math.prod(got) * dtype.itemsize
    # Each access to the field makes a copy of it.
    data = tensor.data
    if len(data) != needed:
        raise TensorError(
            f"{name}: {_name(tensor.dtype)} of shape {list(got)} needs {needed} bytes, "
            f"but {len(data)} came"
        )
    return np.frombuffer(data, dtype=dtype).reshape(got)


def is_finite(array: NDArray[np.generic], dtype: tensor_pb2.Dtype.ValueType) -> bool:
    """Whether no value of ``array``, as ``from_proto`` gives it for ``dtype``, is NaN or infinite.

    Looks at the bits only, since numpy has no bfloat16, and in place: the sign is the highest bit,
    and no finite value of either sign has an exponent as high as the one of infinity.
    """
    bits = array.view(f"<u{array.dtype.itemsize}")
    infinity = _INFINITY[dtype]
    negative = infinity | 1 << (8 * array.dtype.itemsize - 1)
    # As signed numbers all negative values are below the positive ones, as unsigned ones above.
    highest_positive = bits.view(f"<i{array.dtype.itemsize}").max()
    return bool(highest_positive < infinity and bits.max() < negative)


def _fits(got: Sequence[int], wanted: Sequence[int | None]) -> bool:
    return len(got) == len(wanted) and all(
        want is None or size == want for size, want in zip(got, wanted, strict=True)
    )


def _name(dtype: tensor_pb2.Dtype.ValueType) -> str:
    return tensor_pb2.Dtype.Name(dtype)
