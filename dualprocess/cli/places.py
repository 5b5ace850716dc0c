"""What the schema allows at a place of a job file: a text, or something else.

A new field of a request needs no change here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from pydantic import BaseModel

from dualprocess.schemas import BatchRequest, JobSpec

#: A text whose schema has one of these is a name of something, not free text.
_NAMES = ("pattern", "format", "contentEncoding")

_Form = Mapping[str, Any]


class Place:
    """The forms, in JSON Schema, that a value at this place may have. An empty tuple: the place is
    unknown."""

    def __init__(self, forms: tuple[_Form, ...] = ()) -> None:
        self.forms = forms
        self._within: dict[str | None, Place] = {}

    def field(self, name: str) -> Place:
        """The place of a field of this object."""
        return self._part(name, [_field(form, name) for form in self.forms])

    def item(self) -> Place:
        """The place of an item of this list."""
        return self._part(None, [form.get("items") for form in self.forms])

    def _part(self, name: str | None, parts: Sequence[Any]) -> Place:
        if name not in self._within:
            pairs = zip(self.forms, parts, strict=True)
            found = (form for parent, part in pairs for form in _expanded(parent, part))
            self._within[name] = Place(tuple(found))
        return self._within[name]

    def __or__(self, other: Place) -> Place:
        return Place(self.forms + other.forms)

    @property
    def is_text(self) -> bool:
        """Whether any word that is written here may be a text."""
        return any(map(_is_text, self.forms))

    @property
    def holds(self) -> set[type]:
        """``dict`` and ``list``, as far as they are allowed here."""
        kinds = {form.get("type") for form in self.forms}
        return {python for kind, python in (("object", dict), ("array", list)) if kind in kinds}

    def text(self, written: str) -> bool:
        """Whether a word without quotes is this text, and no number, switch or nothing.

        A field that can be left empty has nothing where nothing is written, unless an empty text
        means something there; one that names something, also where ``null`` is written.
        """
        texts = [form for form in self.forms if _is_text(form)]
        if any(form.get("type") == "null" for form in self.forms):
            if not written:
                return any(not form.get("minLength") and _is_free(form) for form in texts)
            if written in ("~", "null", "Null", "NULL"):
                return any(map(_is_free, texts))
        return bool(texts) or any(written in _choices(form) for form in self.forms)


def _is_text(form: _Form) -> bool:
    return form.get("type") == "string" and not _choices(form)


def _is_free(form: _Form) -> bool:
    return not any(name in form for name in _NAMES)


def _choices(form: _Form) -> Sequence[Any]:
    choices: Sequence[Any] = form.get("enum", [form["const"]] if "const" in form else [])
    return choices


def _field(form: _Form, name: str) -> Any:
    return form.get("properties", {}).get(name, form.get("additionalProperties"))


def _expanded(parent: _Form, form: Any) -> Iterator[_Form]:
    """A part of ``parent``, with its definitions. Its alternatives come one by one."""
    if not isinstance(form, dict):
        return
    definitions = parent.get("$defs", {})
    for alternative in form.get("anyOf") or form.get("oneOf") or ():
        yield from _expanded(parent, alternative)
    if "$ref" in form:
        yield from _expanded(parent, definitions[form["$ref"].rpartition("/")[2]])
    elif "type" in form:
        yield {**form, "$defs": definitions}


@cache
def job() -> Place:
    """A whole job."""
    return _of(JobSpec)


@cache
def data_set() -> Place:
    """A whole data set: a request for a batch, or entries in the research script's format."""
    entry = _research_entry()
    entries: _Form = {"type": "array", "items": entry, "$defs": entry["$defs"]}
    beside = {**entry, "properties": {**entry["properties"], "dataset": entries}}
    return _of(BatchRequest) | Place((entries, beside))


def _of(model: type[BaseModel]) -> Place:
    return Place((model.model_json_schema(),))


def _research_entry() -> dict[str, Any]:
    """A job, whose questions have other names and drawings."""
    (spec,) = job().forms
    question = spec["$defs"]["Question"]
    drawing = spec["$defs"]["VisualPrompt"]["properties"]
    path = drawing["image"]
    pair = {
        **question,
        "properties": {
            **question["properties"],
            "ref_images": {"anyOf": [path, {"type": "array", "items": path}, {"type": "null"}]},
            "overlay_mode": {"anyOf": [drawing["mode"], {"type": "null"}]},
        },
    }
    more = {"qa_pairs": {"type": "array", "items": pair}, "opt_repeat": {"type": "integer"}}
    return {**spec, "properties": {**spec["properties"], **more}}
