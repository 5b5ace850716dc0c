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
from dualprocess.schemas.problems import field_path


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
    embed_files(data, folder(file))
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
    return [f"{field_path(one['loc'])}: {one['msg']}" for one in error.errors()]


def apply(data: dict[str, Any], change: str) -> None:
    """Changes a field, as ``optimizer.steps=50`` says. Raises ``BadFile``."""
    path, equals, text = change.partition("=")
    if not equals:
        raise BadFile(f"--set {change}: write it as optimizer.steps=50")
    *parents, last = path.split(".")
    target: Any = data
    for parent in parents:
        target = target[int(parent)] if isinstance(target, list) else target.setdefault(parent, {})
    target[last] = yaml.safe_load(text)


def embed_files(data: dict[str, Any], folder: Path) -> None:
    """The drawings and the LoRA that a job names by path become these files."""
    for question in data.get("questions") or []:
        _embed(question, ("visual_prompt", "image"), folder)
    _embed(data, ("lora", "start", "file"), folder)


def _embed(part: Any, place: Sequence[str], folder: Path) -> None:
    """A path to a file becomes the file; whatever else stands there is for the schema to judge."""
    *parents, last = place
    for parent in parents:
        part = part.get(parent) if isinstance(part, dict) else None
    path = part.get(last) if isinstance(part, dict) else None
    if isinstance(path, str) and len(path) < 1024 and (folder / path).is_file():
        part[last] = base64.b64encode((folder / path).read_bytes()).decode()
