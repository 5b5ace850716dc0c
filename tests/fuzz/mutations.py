"""Strategies that spoil protobuf messages: field by field, or the bytes they travel as."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import strategies as st

Draw = Callable[[st.SearchStrategy[Any]], Any]
MessageT = TypeVar("MessageT", bound=Message)

#: The most entries of a repeated field.
_MANY = 300

_INTEGERS = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_ENUM: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}
_FLOATS = (0.0, -0.0, -1.0, 1e-45, 3e38, math.nan, math.inf, -math.inf)
_WORDS = ("", " ", "\x00", "<image>", "<end_of_utterance>", "./..", "127.0.0.1:1", "é" * 999)


@st.composite
def mutated(draw: Draw, whole: MessageT) -> MessageT:
    """``whole`` with one to three of its fields spoiled, however deep they lie."""
    message = type(whole)()
    message.CopyFrom(whole)
    for _ in range(draw(st.integers(1, 3))):
        _spoil_a_field(draw, message)
    return message


@st.composite
def spoiled(draw: Draw, data: bytes) -> bytes:
    """``data`` cut short, with bytes flipped, put in or doubled; or bytes of nowhere."""
    at = draw(st.integers(0, len(data)))
    match draw(st.sampled_from(["cut", "flip", "insert", "double", "random", "ones"])):
        case "cut":
            return data[:at]
        case "flip":
            return data[:at] + bytes(255 - byte for byte in data[at : at + 4]) + data[at + 4 :]
        case "insert":
            return data[:at] + bytes(draw(st.binary(min_size=1, max_size=16))) + data[at:]
        case "double":
            return data + data[at:]
        case "ones":
            # NaN in every float format.
            return b"\xff" * len(data)
    return bytes(draw(st.binary(max_size=200)))


def _spoil_a_field(draw: Draw, message: Message) -> None:
    fields = list(message.DESCRIPTOR.fields)
    if not fields:
        return
    field = draw(st.sampled_from(fields))
    if field.is_repeated:
        _spoil_entries(draw, message, field)
    elif field.message_type is not None:
        if draw(st.integers(0, 4)) == 0:
            message.ClearField(field.name)
        else:
            child = getattr(message, field.name)
            child.SetInParent()
            _spoil_a_field(draw, child)
    else:
        setattr(message, field.name, _hostile(draw, field, getattr(message, field.name)))


def _spoil_entries(draw: Draw, message: Message, field: FieldDescriptor) -> None:
    entries = getattr(message, field.name)
    match draw(st.sampled_from(["clear", "grow", "spoil", "spoil", "spoil"])):
        case "clear":
            message.ClearField(field.name)
        case "grow":
            count = draw(st.sampled_from([1, 2, _MANY]))
            last = list(entries)[-1:] or [_fresh(field)]
            entries.extend(last * count)
        case _ if not entries:
            entries.append(_fresh(field))
        case _:
            index = draw(st.integers(0, len(entries) - 1))
            if field.message_type is not None:
                _spoil_a_field(draw, entries[index])
            else:
                entries[index] = _hostile(draw, field, entries[index])


def _fresh(field: FieldDescriptor) -> Any:
    if field.message_type is not None:
        return GetMessageClass(field.message_type)()
    return b"" if field.type == FieldDescriptor.TYPE_BYTES else _ZEROS[field.cpp_type]


_ZEROS: dict[int, Any] = {
    **dict.fromkeys(_INTEGERS, 0),
    FieldDescriptor.CPPTYPE_FLOAT: 0.0,
    FieldDescriptor.CPPTYPE_STRING: "",
}


def _hostile(draw: Draw, field: FieldDescriptor, now: Any) -> Any:
    if field.cpp_type in _INTEGERS:
        low, high = _INTEGERS[field.cpp_type]
        edges = [low, high, 0, 1, 2, min(now + 1, high), max(now - 1, low), now // 2, 2**31 - 1]
        return draw(st.sampled_from(edges) | st.integers(low, high))
    if field.cpp_type == FieldDescriptor.CPPTYPE_FLOAT:
        return draw(st.sampled_from(_FLOATS) | st.floats(width=32))
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return not now
    if field.type == FieldDescriptor.TYPE_BYTES:
        return draw(spoiled(now))
    return draw(st.sampled_from(_WORDS) | st.text(max_size=50))
