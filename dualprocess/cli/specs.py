"""Job files: YAML or JSON, with drawings and LoRAs as paths beside the file."""

from __future__ import annotations

import base64
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from dualprocess.schemas import JobSpec
from dualprocess.schemas.faults import field_error

_ANSWERS = {True: "Yes", False: "No"}
#: Whatever is longer is a file already, in base64.
_PATH_CHARACTERS = 1024


class BadFile(ValueError):
    """A job file that can't be used. The message says where and why."""


def load(file: str, changes: Sequence[str] = ()) -> JobSpec:
    """The spec in ``file``, after ``changes`` like ``optimizer.steps=50``.

    ``-`` is standard input. Raises ``BadFile``.
    """
    data = read(file)
    if not isinstance(data, dict):
        raise BadFile(f"{file}: must hold the fields of a job, like prompt and questions")
    for change in changes:
        apply(data, change)
    finish(data, folder(file))
    try:
        return JobSpec.model_validate(data)
    except ValidationError as error:
        raise BadFile("\n".join([f"{file} is no job:", *faults(error)])) from error


def read(file: str) -> Any:
    """What the YAML or JSON in ``file`` holds. Raises ``BadFile``."""
    try:
        return yaml.safe_load(sys.stdin.read() if file == "-" else Path(file).read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BadFile(f"{file}: {error}") from error


def folder(file: str) -> Path:
    """Where the paths in ``file`` begin."""
    return Path.cwd() if file == "-" else Path(file).parent


def faults(error: ValidationError) -> list[str]:
    """A line for each field that is wrong."""
    found = map(field_error, error.errors())
    return [f"{one.field}: {one.message}" for one in found]


def apply(data: dict[str, Any], change: str) -> None:
    """Changes a field, as ``optimizer.steps=50`` says. Raises ``BadFile``."""
    path, equals, text = change.partition("=")
    if not equals:
        raise BadFile(f"--set {change}: write it as optimizer.steps=50")
    *parents, last = path.split(".")
    target: Any = data
    try:
        for parent in parents:
            target = _part(target, parent)
        target[int(last) if isinstance(target, list) else last] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise BadFile(f"--set {path}: {text} is no YAML: {error}") from error
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise BadFile(f"--set {path}: the job has no such place") from error


def _part(whole: Any, name: str) -> Any:
    return whole[int(name)] if isinstance(whole, list) else whole.setdefault(name, {})


def finish(data: dict[str, Any], folder: Path) -> None:
    """What was written for people becomes what the schema wants: YAML's Yes and No words again,
    the drawings and the LoRA that a job names by path these files. Raises ``BadFile``."""
    questions = data.get("questions")
    for number, question in enumerate(questions if isinstance(questions, list) else []):
        # YAML takes an unquoted Yes for true.
        if isinstance(question, dict) and isinstance(question.get("answer"), bool):
            question["answer"] = _ANSWERS[question["answer"]]
        _embed(question, ("visual_prompt", "image"), folder, f"questions.{number}.")
    _embed(data, ("lora", "start", "file"), folder)


def _embed(part: Any, place: Sequence[str], folder: Path, prefix: str = "") -> None:
    """A path to a file becomes the file; whatever else stands there is for the schema to judge."""
    *parents, last = place
    for parent in parents:
        part = part.get(parent) if isinstance(part, dict) else None
    path = part.get(last) if isinstance(part, dict) else None
    if not isinstance(path, str) or path.startswith("data:") or len(path) >= _PATH_CHARACTERS:
        return
    try:
        part[last] = base64.b64encode((folder / path).read_bytes()).decode()
    except (OSError, ValueError) as error:
        # Base64 has no dots; file names have.
        if "." in path:
            where = f"{prefix}{'.'.join(place)}"
            raise BadFile(f"{where}: can't read {folder / path}: {error}") from error
