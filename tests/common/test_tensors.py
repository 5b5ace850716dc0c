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


BITS = {torch.float32: "<u4", torch.float16: "<u2", torch.bfloat16: "<u2"}
#: For each dtype, bits of the values at the edges: ±0, the smallest and largest subnormal, the
#: smallest normal and largest finite value, infinity, the first and the last NaN.
EDGES = {
    torch.float32: (0, 1, 0x7FFFFF, 0x800000, 0x7F7FFFFF, 0x7F800000, 0x7F800001, 0x7FFFFFFF),
    torch.float16: (0, 1, 0x3FF, 0x400, 0x7BFF, 0x7C00, 0x7C01, 0x7FFF),
    torch.bfloat16: (0, 1, 0x7F, 0x80, 0x7F7F, 0x7F80, 0x7F81, 0x7FFF),
}


def bit_patterns(dtype: torch.dtype) -> st.SearchStrategy[list[int]]:
    sign = 1 << (8 * dtype.itemsize - 1)
    edges = [bits | side for bits in EDGES[dtype] for side in (0, sign)]
    finite = st.integers(0, EDGES[dtype][4])
    anything = st.one_of(
        st.sampled_from(edges),
        finite,
        finite.map(lambda bits: bits | sign),
        st.integers(0, 2 * sign - 1),
    )
    return st.lists(anything, min_size=1, max_size=40)


@pytest.mark.parametrize("dtype", list(BITS))
@given(data=st.data())
def test_a_tensor_is_refused_exactly_if_a_value_is_not_finite(
    dtype: torch.dtype, data: st.DataObject
) -> None:
    bits = np.array(data.draw(bit_patterns(dtype)), BITS[dtype])
    wire = torch_tensors.WIRE_DTYPES[dtype]
    sent = tensor_pb2.Tensor(dtype=wire, shape=bits.shape, data=bits.tobytes())
    meant = torch.frombuffer(bytearray(sent.data), dtype=dtype)
    if torch.isfinite(meant).all():
        got = torch_tensors.from_proto(sent, name="gradient")
        assert torch_tensors.to_proto(got).data == sent.data
    else:
        with pytest.raises(TensorError, match="gradient: holds NaN or infinity"):
            torch_tensors.from_proto(sent, name="gradient")


@pytest.mark.parametrize("dtype", list(BITS))
def test_each_edge_is_judged_as_torch_judges_it(dtype: torch.dtype) -> None:
    sign = 1 << (8 * dtype.itemsize - 1)
    for edge in [bits | side for bits in EDGES[dtype] for side in (0, sign)]:
        bits = np.array([edge], BITS[dtype])
        meant = torch.frombuffer(bytearray(bits.tobytes()), dtype=dtype)
        array = bits.view(tensors.NUMPY_DTYPES[torch_tensors.WIRE_DTYPES[dtype]])
        assert tensors.is_finite(array, torch_tensors.WIRE_DTYPES[dtype]) == bool(
            torch.isfinite(meant).all()
        ), hex(edge)
