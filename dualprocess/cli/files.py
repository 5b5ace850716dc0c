"""Files of YAML or JSON, in UTF-8 whatever the machine's own encoding is."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer

from dualprocess.cli import as_written
from dualprocess.cli.as_written import BadYaml
from dualprocess.cli.places import Place

#: A string, perhaps with the colon that makes it a name; or a bracket that begins or ends an object
#: or a list.
_JSON_TOKEN = re.compile(r'("(?:[^"\\]|\\.)*")(\s*:)?|[{}\[\]]')


class BadFile(ValueError):
    """A file that can't be used. The message says where and why."""


class _Repeated(Exception):
    pass


def read(file: str, place: Place) -> Any:
    """The value of the YAML or JSON in ``file``, which belongs at ``place``. ``-`` is standard
    input. Raises ``BadFile``."""
    text = _text(file)
    try:
        return json.loads(text, object_pairs_hook=_object)
    except _Repeated:
        raise BadFile(f"{file}: {_repeated(text)}") from None
    except RecursionError:
        raise BadFile(f"{file}: is nested too deep") from None
    except ValueError as error:
        not_json = error
    try:
        return as_written.load(text, place)
    except BadYaml as error:
        fault = f"is not JSON: {not_json}" if file.lower().endswith(".json") else error
        raise BadFile(f"{file}: {fault}") from error


def _text(file: str) -> str:
    name = "standard input" if file == "-" else file
    try:
        stdin = typer.get_binary_stream("stdin")
        data = stdin.read() if file == "-" else Path(file).read_bytes()
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise BadFile(f"{name}: is not UTF-8 on line {line}; save it as UTF-8") from error
    except (OSError, ValueError) as error:
        raise BadFile(f"{file}: {error}") from error


def _object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    whole = dict(pairs)
    if len(whole) < len(pairs):
        raise _Repeated
    return whole


def _repeated(text: str) -> str:
    """Says which name stands twice in one object of valid JSON, and where."""
    above: list[set[str]] = []
    for token in _JSON_TOKEN.finditer(text):
        if token[0] in "{[":
            above.append(set())
        elif token[0] in "}]":
            above.pop()
        elif token[2]:
            name = json.loads(token[1])
            if name in above[-1]:
                line = text.count("\n", 0, token.start()) + 1
                return f"line {line}: {name} stands here twice; leave one out"
            above[-1].add(name)
    return "a name stands twice in one object; leave one out"
