"""Tables of the documentation, from the code: fields of requests, settings, presets, routes."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import AliasChoices, BaseModel
from pydantic.fields import FieldInfo
from pydantic_settings import CLI_SUPPRESS, BaseSettings

from services.common.extras import has_page
from services.common.lora_layouts import table as lora_table
from services.common.presets import load_presets
from services.orchestrator.api.openapi import openapi

ROOT = Path(__file__).parents[1]

_LIMITS = (
    ("minimum", "≥ {}"),
    ("exclusiveMinimum", "> {}"),
    ("maximum", "≤ {}"),
    ("exclusiveMaximum", "< {}"),
    ("maxLength", "at most {} characters"),
)

#: What a default is that this machine decides.
_COMPUTED: Mapping[Any, str] = {
    has_page: "true where the extra `[ui]` is installed",
    socket.gethostname: "this machine's name",
}


def fields(model: type[BaseModel], *, left_out: str = "required", none: str = "none") -> str:
    """What a request can hold, with limits, default and effect. ``left_out`` is written as the
    default of a field that has none, ``none`` as that of a field whose default is null."""
    schema = model.model_json_schema()
    required = schema.get("required", [])
    rows = [
        (
            f"`{name}`",
            _kind(field),
            left_out if name in required else _default(field, none),
            description(field) or f"See [{name}](#{name}).",
        )
        for name, field in schema["properties"].items()
    ]
    return table(("field", "value", "default", "effect"), rows)


def settings(model: type[BaseSettings]) -> str:
    """What can be set for a process, by flag and by environment variable."""
    rows = []
    for name, field in model.model_json_schema()["properties"].items():
        info = model.model_fields[name]
        flag = f"`--{name.replace('_', '-')}`"
        if CLI_SUPPRESS in info.metadata:
            flag = "by environment only"
        default = "required" if info.is_required() else _shown(info.default)
        if info.default_factory is not None:
            default = _COMPUTED[info.default_factory]
        rows.append((flag, " or ".join(_variables(name, info)), default, description(field)))
    return table(("flag", "variable", "default", "effect"), rows)


def _variables(name: str, info: FieldInfo) -> list[str]:
    """The environment variables of a setting, the first of them first."""
    named = [f"DUALPROCESS_{name.upper()}"]
    if isinstance(info.validation_alias, AliasChoices):
        named = [str(choice) for choice in info.validation_alias.choices if choice != name]
    return [f"`{variable}`" for variable in named]


def presets() -> str:
    """The defaults of each generator."""
    rows = []
    for preset in load_presets().generators.values():
        optimizer, lora, guard = preset.optimizer, preset.lora, preset.guard
        scale = lora.weight * lora.alpha / lora.rank
        rows.append(
            (
                f"`{preset.name}`",
                f"{preset.image.width}×{preset.image.height}",
                f"{preset.image.num_inference_steps}, {preset.image.guidance_scale:g}",
                f"{preset.sides.minimum} to {preset.sides.maximum}, by {preset.sides.multiple_of}",
                f"{optimizer.steps} × {optimizer.batch}, {optimizer.lr:g}",
                f"{lora.rank}, {scale:g}",
                f"{guard.anchor:g}, {guard.margin:g}, {guard.worst_case:g}",
            )
        )
    columns = ("preset", "image", "sampler's steps, guidance", "sides", "steps × batch, lr")
    return table((*columns, "rank, scale", "anchor, margin, worst case"), rows)


def lora_layouts() -> str:
    """Which LoRA files a job can begin with."""
    rows = []
    for row in lora_table.ROWS:
        told = [row.outcome if family in row.families else "" for family in lora_table.EVERY]
        rows.append((row.layout, f"`{row.example}`", *told))
    families = [f"`{family}`" for family in lora_table.EVERY]
    return table(("layout", "names of tensors", *families), rows)


def routes() -> str:
    """What the REST API can be asked."""
    rows = []
    for path, operations in openapi()["paths"].items():
        for method, operation in operations.items():
            told = operation.get("description", operation["summary"]).partition("\n\n")[0]
            rows.append((f"`{method.upper()}`", f"`{path}`", told.replace("\n", " ")))
    return table(("method", "path", "does"), rows)


def _default(field: Mapping[str, Any], none: str) -> str:
    value = field.get("default")
    return none if value is None else _shown(value)


def description(field: Mapping[str, Any]) -> str:
    """What a field's schema says of its effect."""
    told: str = field.get("description", "")
    for form in _forms(field):
        told = told or form.get("description", "")
    return told


def _forms(field: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The forms that a value may have, but for null."""
    forms = field.get("anyOf") or field.get("oneOf") or [field]
    return [form for form in forms if form.get("type") != "null"]


def _kind(field: Mapping[str, Any]) -> str:
    return " or ".join(_form(form) for form in _forms(field))


def _form(form: Mapping[str, Any]) -> str:
    if "$ref" in form:
        return _reference(form)
    if "const" in form:
        return f"`{form['const']}`"
    if "enum" in form:
        return " or ".join(f"`{value}`" for value in form["enum"])
    kind = form.get("type", "")
    if form.get("contentEncoding") == "base64":
        return "a file in base64; in a job file its path"
    words = {"boolean": "true or false", "object": "names and values"}
    shown = words.get(kind, kind)
    if kind == "array":
        shown = f"list of {_form(form['items'])}"
        if "maxItems" in form:
            shown += f"; {form.get('minItems', 0)} to {form['maxItems']} of them"
    limits = [text.format(_shown(form[key])) for key, text in _LIMITS if key in form]
    return ", ".join([shown, *limits])


def _reference(form: Mapping[str, Any]) -> str:
    return f"`{form['$ref'].rpartition('/')[2]}`"


def _shown(value: Any) -> str:
    if value in (None, "", [], {}):
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "the preset's"
    if isinstance(value, float):
        return f"{value:g}" if value % 1 else f"{value:.0f}"
    if isinstance(value, Path):
        value = str(value.relative_to(ROOT) if value.is_absolute() else value)
    if isinstance(value, str):
        return f"`{value.replace(str(Path.cwd()), '$PWD')}`"
    return str(value)


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """As Markdown."""
    return "\n".join(_lines(columns, rows))


def _lines(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(columns)} |"
    yield f"|{' --- |' * len(columns)}"
    for row in rows:
        yield f"| {' | '.join(cell.replace('|', '∣').replace(chr(10), ' ') for cell in row)} |"
