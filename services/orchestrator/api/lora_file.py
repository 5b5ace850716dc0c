"""Checks whether an upload is a LoRA in a safetensors file, by its header alone: nothing is
unpickled, and no tensor is read.

Format: 8 bytes length of the header, little-endian; the header, a JSON object of tensors by name;
then their bytes, one tensor after the other, without a gap and without a rest.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, TypeAdapter
from pydantic_core import from_json

from services.common.errors import InvalidInput
from services.orchestrator.json_outline import Outline, TooMuch

_MAX_HEADER_BYTES = 16 * 1024 * 1024
_MAX_TENSORS = 20_000
#: Values in the header: the name, dtype, shape and place of each tensor.
_MAX_VALUES = 8 * _MAX_TENSORS
_MAX_NAME = 1000
#: Bytes of the header that are searched at a time.
_PIECE = 1 << 16
#: Limits of a shape. Without them the product of its sides could be a number of any length.
_MAX_DIMENSIONS = 5
_MAX_SIDE = 2**31 - 1
_DTYPE_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
_PICKLES = (b"PK\x03\x04", b"\x80")
_REMEDY = "send a LoRA as a safetensors file, as diffusers and kohya's scripts save it"


class _Tensor(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    dtype: str
    shape: list[NonNegativeInt]
    data_offsets: Annotated[list[NonNegativeInt], Field(min_length=2, max_length=2)]


_TENSORS: TypeAdapter[dict[str, _Tensor]] = TypeAdapter(dict[str, _Tensor])


class LoraHeader(NamedTuple):
    """``shapes`` of the tensors by name."""

    shapes: Mapping[str, Sequence[int]]
    metadata: Mapping[str, str]


def read_lora_header(data: bytes) -> LoraHeader:
    """Raises ``InvalidInput`` with what is wrong and the remedy."""
    length = int.from_bytes(data[:8], "little")
    # The bytes of the length can have any value, also the first bytes of a pickle.
    framed = data[8:9] == b"{" and length <= _MAX_HEADER_BYTES
    if data.startswith(_PICKLES) and not framed:
        raise _fault("is a pickle, which can run code where it is opened")
    if len(data) < 8 or length > min(_MAX_HEADER_BYTES, len(data) - 8):
        raise _fault("has no complete safetensors header")
    tensors, metadata = _tensors(data[8 : 8 + length])
    if not 0 < len(tensors) <= _MAX_TENSORS:
        raise _fault(f"has {len(tensors)} tensors")
    end = _checked(sorted(tensors.items(), key=lambda item: item[1].data_offsets))
    if end != len(data) - 8 - length:
        raise _fault(f"has {len(data) - 8 - length} bytes of tensors where its header says {end}")
    return LoraHeader({name: tensor.shape for name, tensor in tensors.items()}, metadata)


def _tensors(header: bytes) -> tuple[dict[str, _Tensor], dict[str, str]]:
    try:
        outline = Outline(_MAX_VALUES)
        for begin in range(0, len(header), _PIECE):
            outline.feed(header[begin : begin + _PIECE])
        found: Any = from_json(header)
        metadata = found.pop("__metadata__", {})
        metadata = TypeAdapter(dict[str, str]).validate_python(metadata, strict=True)
        return _TENSORS.validate_python(found, strict=True), metadata
    except TooMuch as error:
        raise _fault(f"has a header that {str(error).partition(';')[0]}") from error
    except (ValueError, AttributeError, TypeError) as error:
        raise _fault("has no readable safetensors header") from error


def _checked(tensors: Sequence[tuple[str, _Tensor]]) -> int:
    """The place where the last tensor's bytes end."""
    end = 0
    for name, tensor in tensors:
        shown = repr(name[:100])
        if len(name) > _MAX_NAME:
            raise _fault(
                f"has a name of {len(name):,} characters, {shown}; a name may have "
                f"{_MAX_NAME:,} at most"
            )
        if tensor.dtype not in _DTYPE_BYTES:
            allowed = ", ".join(_DTYPE_BYTES)
            raise _fault(f"has {shown} in {tensor.dtype[:20]}; supported are {allowed}")
        if len(tensor.shape) > _MAX_DIMENSIONS or max(tensor.shape, default=0) > _MAX_SIDE:
            limits = f"at most {_MAX_DIMENSIONS} dimensions of at most {_MAX_SIDE:,} are read"
            raise _fault(f"has {shown} in a shape that no layer has; {limits}")
        begin, size = end, math.prod(tensor.shape) * _DTYPE_BYTES[tensor.dtype]
        end += size
        if tensor.data_offsets != [begin, end]:
            raise _fault(f"does not have the bytes for {shown} that its shape needs")
    return end


def _fault(what: str) -> InvalidInput:
    return InvalidInput(f"{what}; {_REMEDY}")
