"""Job files: YAML or JSON. They name drawings and LoRAs by paths relative to the file."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from dualprocess.cli import as_written, places
from dualprocess.cli.as_written import BadYaml
from dualprocess.cli.files import BadFile, read
from dualprocess.cli.places import Place
from dualprocess.schemas import GuardSettings, JobSpec
from dualprocess.schemas.faults import MAX_FAULTS, field_errors
from dualprocess.schemas.fields import is_data_url

#: A longer text is no path but the file itself, in base64.
_PATH_CHARACTERS = 1024


def load(file: str, changes: Sequence[str] = ()) -> JobSpec:
    """The spec in ``file``, with ``changes`` made, like ``optimizer.steps=50``.

    ``-`` is standard input. Raises ``BadFile``.
    """
    data = read(file, places.job())
    if not isinstance(data, dict):
        raise BadFile(f"{file}: must hold the fields of a job, like prompt and questions")
    for change in changes:
        apply(data, change)
    finish(data, folder(file))
    try:
        return JobSpec.model_validate(data)
    except ValidationError as error:
        raise BadFile("\n".join([f"{file} is no job:", *faults(error)])) from error


def folder(file: str) -> Path:
    """The folder that the paths in ``file`` are relative to."""
    return Path.cwd() if file == "-" else Path(file).parent


def faults(error: ValidationError) -> list[str]:
    """A line for each of the first fields that are wrong, and one for how many more are."""
    found = field_errors(error.errors(include_url=False, include_input=False)[:MAX_FAULTS])
    lines = [f"{one.field}: {one.message}" for one in found]
    more = error.error_count() - len(found)
    return [*lines, f"and {more:,} more faults; correct these first"] if more else lines


def apply(data: dict[str, Any], change: str) -> None:
    """Changes a field, as ``optimizer.steps=50`` says. Raises ``BadFile``.

    A text is everything after the equals sign, with its quotes.
    """
    path, equals, text = change.partition("=")
    if not equals:
        raise BadFile(f"--set {change}: write it as optimizer.steps=50")
    *parents, last = path.split(".")
    target: Any = data
    place = places.job()
    try:
        for parent in parents:
            target, place = _part(target, parent), _place(target, parent, place)
        place = _place(target, last, place)
        target[int(last) if isinstance(target, list) else last] = _changed(text, place)
    except BadYaml as error:
        raise BadFile(f"--set {path}: {error}") from error
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise BadFile(f"--set {path}: the job has no such place") from error


def in_quotes(changes: Sequence[str]) -> Iterator[str]:
    """The paths of texts that have quotes around them; the quotes are part of the text."""
    for change in changes:
        path, _, text = change.partition("=")
        place = places.job()
        for part in path.split("."):
            place = place.item() if part.isdecimal() else place.field(part)
        quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "\"'"
        if quoted and _changed(text, place) == text:
            yield path


def _part(whole: Any, name: str) -> Any:
    if isinstance(whole, list):
        return whole[int(name)]
    if name == "guard" and whole.get(name) in ("off", False):
        # Changes of single parts start from a guard that is off.
        whole[name] = GuardSettings().model_dump()
    return whole.setdefault(name, {})


def _place(whole: Any, name: str, place: Place) -> Place:
    return place.item() if isinstance(whole, list) else place.field(name)


def _changed(text: str, place: Place) -> Any:
    if not place.text(text):
        return as_written.load(text, place)
    if place.holds:
        try:
            value = as_written.load(text, place)
        except BadYaml:
            return text
        return value if type(value) in place.holds else text
    return text


def finish(data: dict[str, Any], folder: Path) -> None:
    """Replaces the paths of drawings and of the LoRA by the files. Raises ``BadFile``."""
    questions = data.get("questions")
    for number, question in enumerate(questions if isinstance(questions, list) else []):
        _embed(question, ("visual_prompt", "image"), folder, f"questions.{number}.")
    _embed(data, ("lora", "start", "file"), folder)


def _embed(part: Any, place: Sequence[str], folder: Path, prefix: str = "") -> None:
    """Replaces a path by the file. Anything else stays for the schema to check."""
    *parents, last = place
    for parent in parents:
        part = part.get(parent) if isinstance(part, dict) else None
    path = part.get(last) if isinstance(part, dict) else None
    if not isinstance(path, str) or is_data_url(path) or len(path) >= _PATH_CHARACTERS:
        return
    try:
        part[last] = base64.b64encode((folder / path).read_bytes()).decode()
    except (OSError, ValueError) as error:
        # Base64 has no dots; file names have.
        if "." in path:
            where = f"{prefix}{'.'.join(place)}"
            raise BadFile(f"{where}: can't read {folder / path}: {error}") from error
