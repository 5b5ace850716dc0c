"""The documentation builds without a broken link, fetches nothing, and says what the code says."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from docs.tables import description
from docs.write import current
from services.common.settings import GpuServiceSettings, ServiceSettings
from services.local.settings import LocalSettings
from services.orchestrator.api.settings import ApiSettings
from services.orchestrator.worker.settings import WorkerSettings

ROOT = Path(__file__).parents[1]
_FETCHED = re.compile(r'<(?:script|img|iframe)[^>]* src="(?:https?:)?//|<link[^>]* href="https?://')
#: Places that logging and str.format fill in.
_FILLED_IN = re.compile(r"%[.\d]*[a-z]|\{[^{}]*\}")
_FIRST_CELL = re.compile(r"^\| (.*?) \|", re.MULTILINE)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", f"--site-dir={folder}"],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stderr
    return folder


def test_it_builds_strictly_with_its_tables(site: Path) -> None:
    settings = (site / "settings" / "index.html").read_text()
    assert "max_grad_norm" in settings
    assert "DUALPROCESS_KEEP_DAYS" in settings
    assert "/v1/batches/{batch_id}/cancel" in (site / "api" / "index.html").read_text()
    assert "--install-completion" in (site / "command-line" / "index.html").read_text()
    assert "dualprocess track" in (site / "command-line" / "index.html").read_text()
    assert "dualprocess keys revoke" in (site / "command-line" / "index.html").read_text()
    assert (site / "openapi.json").is_file()
    assert "What is not promised" in (site / "security" / "index.html").read_text()


def test_a_readers_browser_fetches_nothing_from_elsewhere(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 10
    assert [page.name for page in pages if _FETCHED.search(page.read_text())] == []


@pytest.mark.parametrize(
    "settings", [ApiSettings, WorkerSettings, GpuServiceSettings, LocalSettings]
)
def test_every_setting_says_what_it_does(settings: type[ServiceSettings]) -> None:
    fields = settings.model_json_schema()["properties"]
    assert [name for name, field in fields.items() if not description(field)] == []


PAGES = sorted((ROOT / "docs").glob("*.md"))


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_the_tables_of_a_page_are_those_of_the_code(path: Path) -> None:
    page = path.read_text(encoding="utf-8")
    assert page == current(page), "run python -m docs.write"


def test_a_table_that_nobody_knows_and_half_a_mark_are_errors() -> None:
    with pytest.raises(ValueError, match="<!-- colours --> is no table"):
        current("<!-- colours -->\n<!-- /colours -->\n")
    with pytest.raises(ValueError, match="lacks its first or its last mark"):
        current("<!-- routes -->\n\nno end")


def test_every_page_names_the_oldest_python_that_the_package_takes() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    oldest = project["requires-python"].removeprefix(">=")
    named = {
        path.name: re.findall(r"\bPython (3\.\d+.{9})", path.read_text(encoding="utf-8"))
        for path in [ROOT / "README.md", *PAGES]
    }
    assert named["README.md"]
    assert named["index.md"]
    assert {name for names in named.values() for name in names} == {f"{oldest} or newer"}


def messages() -> list[str]:
    """Everything that the tables of the troubleshooting page quote."""
    page = (ROOT / "docs" / "troubleshooting.md").read_text()
    quoted = [message for cell in _FIRST_CELL.findall(page) for message in cell.split("`")[1::2]]
    assert len(quoted) > 20
    return quoted


def texts() -> Iterator[str]:
    """Every text in the code of the services and the client, with … for what is filled in."""
    for source in [*ROOT.glob("services/**/*.py"), *ROOT.glob("dualprocess/**/*.py")]:
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = (
                    part.value if isinstance(part, ast.Constant) else "…" for part in node.values
                )
                yield "".join(map(str, parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield _FILLED_IN.sub("…", node.value)


def test_the_messages_in_troubleshooting_are_those_of_the_code() -> None:
    code = "\n".join(text.replace("\n", " ") for text in texts())
    wrong = []
    for message in messages():
        parts = [re.escape(part.strip(" ,.'()")) for part in message.split("…")]
        # On one line, so in one text of the code: its parts in this order.
        if not re.search(".*".join(filter(None, parts)), code):
            wrong.append(message)
    assert wrong == []
