from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from services.orchestrator.api.app import create_app
from services.orchestrator.api.settings import ApiSettings

HERE = Path(__file__).parent


def ran(*command: str, folder: Path = HERE) -> str:
    """What the command, which succeeds, prints."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="session")
def node_modules() -> Path:
    """The packages of the lock file; they are fetched once for each lock file."""
    lock, stamp = HERE / "package-lock.json", HERE / "node_modules" / ".package-lock.json"
    if not stamp.is_file() or stamp.stat().st_mtime < lock.stat().st_mtime:
        ran("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
    return HERE / "node_modules"


def document(folder: Path, *, auth: bool) -> dict[str, Any]:
    """The document of a service with or without keys."""
    settings = ApiSettings(artifacts=(folder / "artifacts").as_uri(), auth=auth)
    return create_app(settings).openapi()


def written(folder: Path, *, auth: bool = False) -> Path:
    """The document as a file."""
    path = folder / f"openapi-{auth}.json"
    path.write_text(json.dumps(document(folder, auth=auth)))
    return path
