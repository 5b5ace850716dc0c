"""What mkdocs asks while it builds the site: tables for their places, and files from elsewhere."""

from __future__ import annotations

import json
import re
from importlib import import_module
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from docs import tables
from docs.commands import commands
from services.orchestrator.api.openapi import openapi

ROOT = Path(__file__).parents[1]

#: Where a table goes: <!-- fields dualprocess.schemas.JobSpec -->.
_PLACE = re.compile(r"^<!-- ([a-z-]+)(?: ([\w.]+))? -->$", re.MULTILINE)


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Pages and files that lie elsewhere in the repository, or in no file."""
    security = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    files.append(File.generated(config, "security.md", content=security))
    files.append(File.generated(config, "openapi.json", content=json.dumps(openapi(), indent=1)))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Each table in its place. Raises ``ValueError`` for one that nobody knows."""
    # As links go in the repository; here the file is a page.
    markdown = markdown.replace("(../SECURITY.md", "(security.md")
    return _PLACE.sub(lambda place: _table(place[1], place[2]), markdown)


def _table(kind: str, name: str | None) -> str:
    match kind, name:
        case "commands", None:
            return commands()
        case "presets", None:
            return tables.presets()
        case "lora-layouts", None:
            return tables.lora_layouts()
        case "routes", None:
            return tables.routes()
        case "fields", str():
            return tables.fields(_class(name))
        case "preset-fields", str():
            return tables.fields(_class(name), left_out="the preset's", none="the preset's")
        case "settings", str():
            return tables.settings(_class(name))
    raise ValueError(f"<!-- {kind} {name or ''} --> is no table; docs/hook.py has those there are")


def _class(name: str) -> Any:
    module, _, attribute = name.rpartition(".")
    return getattr(import_module(module), attribute)
