"""Writes the tables of the documentation's pages anew, from the code: ``python -m docs.write``."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path
from typing import Any

from docs import classes, footprints, tables
from docs.commands import commands

PAGES = Path(__file__).parent

#: What stands between <!-- fields dualprocess.schemas.JobSpec --> and <!-- /fields -->.
_PLACE = re.compile(
    r"^<!-- (?P<kind>[a-z-]+)(?: (?P<name>[\w.]+))? -->\n(?:.*?\n)??<!-- /(?P=kind) -->$",
    re.MULTILINE | re.DOTALL,
)
_MARK = re.compile(r"^<!-- /?[a-z-]+", re.MULTILINE)


def current(page: str) -> str:
    """The page with every table as the code has it now. Raises ``ValueError`` for a table that
    does not exist, and for a mark without its other half."""
    if len(_MARK.findall(page)) != 2 * len(_PLACE.findall(page)):
        raise ValueError("a table lacks its first or its last mark: <!-- KIND --> … <!-- /KIND -->")
    return _PLACE.sub(_filled, page)


def _filled(place: re.Match[str]) -> str:
    first_line = place[0].partition("\n")[0]
    table = _table(place["kind"], place["name"])
    return f"{first_line}\n\n{table.strip()}\n\n<!-- /{place['kind']} -->"


def _table(kind: str, name: str | None) -> str:
    match kind, name:
        case "commands", None:
            return commands()
        case "presets", None:
            return tables.presets()
        case "needs", None:
            return tables.table(*footprints.needs())
        case "pairs", None:
            return tables.table(*footprints.pairs())
        case "lora-layouts", None:
            return tables.lora_layouts()
        case "errors", None:
            return classes.error_tree()
        case "methods", str():
            return classes.methods(_class(name))
        case "routes", None:
            return tables.routes()
        case "fields", str():
            return tables.fields(_class(name))
        case "preset-fields", str():
            return tables.fields(_class(name), left_out="the preset's", none="the preset's")
        case "settings", str():
            return tables.settings(_class(name))
    place = kind if name is None else f"{kind} {name}"
    raise ValueError(f"<!-- {place} --> is no table; docs/write.py has those there are")


def _class(name: str) -> Any:
    module, _, attribute = name.rpartition(".")
    return getattr(import_module(module), attribute)


if __name__ == "__main__":
    for path in sorted(PAGES.glob("*.md")):
        page = path.read_text(encoding="utf-8")
        path.write_text(current(page), encoding="utf-8")
