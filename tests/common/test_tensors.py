"""Tensors on the wire: what is sent arrives bit for bit, and nothing else gets in."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from dualprocess import tensors
from dualprocess.errors import TensorError
from dualprocess.v1 import tensor_pb2
from services.common import torch_tensors

FLOATS = {"<f4": tensor_pb2.DTYPE_FLOAT32, "<f2": tensor_pb2.DTYPE_FLOAT16}


@given(
    arrays(
        st.sampled_from(sorted(FLOATS)),
        array_shapes(max_dims=5, max_side=5),
        elements={"allow_subnormal": False},
    )
)
def test_arrays_arrive_bit_for_bit(array: np.ndarray) -> None:
    sent = tensors.to_proto(array, FLOATS[array.dtype.str])
    got = tensors.from_proto(tensor_pb2.Tensor.FromString(sent.SerializeToString()), name="image")
    assert got.dtype == array.dtype
    assert got.shape == array.shape
    assert got.tobytes() == array.tobytes()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_torch_tensors_keep_their_dtype(dtype: torch.dtype) -> None:
    tensor = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0)).to(dtype)
    sent = torch_tensors.to_proto(tensor.transpose(0, 2))
    got = torch_tensors.from_proto(sent, name="image")
    assert got.dtype == dtype
    assert torch.equal(got, tensor.transpose(0, 2))
    assert len(sent.data) == tensor.numel() * dtype.itemsize
    got += 1  # of its own memory


FLOAT32 = tensor_pb2.DTYPE_FLOAT32
FOUR = np.zeros((2, 2), "<f4").tobytes()


@pytest.mark.parametrize(
    ("tensor", "sentence"),
    [
        (tensor_pb2.Tensor(shape=[2, 2], data=FOUR), "image: dtype 0 is unknown"),
        (tensor_pb2.Tensor(dtype=FLOAT32, shape=[2, 3], data=FOUR), "needs 24 bytes, but 16 came"),
        (tensor_pb2.Tensor(dtype=FLOAT32, shape=[2, -2], data=FOUR), "all positive"),
        (tensor_pb2.Tensor(dtype=FLOAT32, shape=[0], data=b""), "all positive"),
        (tensor_pb2.Tensor(dtype=FLOAT32, shape=[1] * 9, data=FOUR[:4]), "at most 8 sizes"),
        (
            tensor_pb2.Tensor(dtype=FLOAT32, shape=[2, 2**62], data=FOUR),
            "needs 36893488147419103232",
        ),
        (tensor_pb2.Tensor(dtype=FLOAT32, shape=[4], data=FOUR), r"shape \[4\] is not \[2, any\]"),
    ],
)
def test_a_wrong_tensor_is_refused_with_a_sentence(
    tensor: tensor_pb2.Tensor, sentence: str
) -> None:
    with pytest.raises(TensorError, match=sentence):
        tensors.from_proto(tensor, name="image", shape=(2, None))


def test_integers_can_not_travel() -> None:
    with pytest.raises(TensorError, match=r"torch\.int64 can't be sent"):
        torch_tensors.to_proto(torch.zeros(1, dtype=torch.int64))
    with pytest.raises(TensorError, match="needs a numpy array of float32"):
        tensors.to_proto(np.zeros(1, "<f8"), tensor_pb2.DTYPE_FLOAT32)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_is_refused(value: float) -> None:
    sent = torch_tensors.to_proto(torch.tensor([1.0, value], dtype=torch.bfloat16))
    with pytest.raises(TensorError, match="gradient: holds NaN or infinity"):
        torch_tensors.from_proto(sent, name="gradient")
