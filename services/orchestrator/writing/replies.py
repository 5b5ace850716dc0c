"""A writer's reply: text that contains one JSON object."""

from __future__ import annotations

import json
import re
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from dualprocess.schemas.problems import field_path

ReplyT = TypeVar("ReplyT", bound=BaseModel)

#: A reply is a few paragraphs; whatever is longer is none.
_MAX_CHARACTERS = 50_000
#: Objects that are looked at: a model that thinks aloud writes some before the one it means.
_MAX_OBJECTS = 50


class BadReply(Exception):
    """A reply that can't be used. The message says what is wrong with it."""


def read_reply(text: str, model: type[ReplyT]) -> ReplyT:
    """The last object in ``text`` that is a ``model``. Raises ``BadReply``."""
    if len(text) > _MAX_CHARACTERS:
        raise BadReply(f"it has {len(text):,} characters")
    fault = "it holds no JSON object"
    begins = [match.start() for match in re.finditer(r"\{", text)][-_MAX_OBJECTS:]
    decoder = json.JSONDecoder()
    found = None
    end = 0
    for begin in begins:
        if begin < end:
            continue
        try:
            data, end = decoder.raw_decode(text, begin)
        except (ValueError, RecursionError) as error:
            fault = f"its JSON is not complete: {error}" if found is None else fault
            continue
        try:
            found = model.model_validate(data)
        except ValidationError as error:
            first = error.errors()[0]
            fault = f"{field_path(first['loc'])}: {first['msg']}"
    if found is None:
        raise BadReply(fault)
    return found
