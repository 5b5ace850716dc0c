"""What mkdocs asks while it builds the site: files that do not lie in docs/."""

from __future__ import annotations

import json
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from services.orchestrator.api.openapi import openapi

ROOT = Path(__file__).parents[1]


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Adds SECURITY.md as a page, and the OpenAPI document as a file."""
    security = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    files.append(File.generated(config, "security.md", content=security))
    files.append(File.generated(config, "openapi.json", content=json.dumps(openapi(), indent=1)))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links to SECURITY.md are written as they work in the repository; on the site it is a page."""
    return markdown.replace("(../SECURITY.md", "(security.md")
