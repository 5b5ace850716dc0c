"""The OpenAPI document with nothing running: ``python -m services.orchestrator.api.openapi``."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from services.orchestrator.api.app import create_app
from services.orchestrator.api.settings import ApiSettings


def openapi() -> dict[str, Any]:
    """The document that the API serves at ``/openapi.json`` if it needs no keys."""
    with tempfile.TemporaryDirectory() as folder:
        settings = ApiSettings(artifacts=Path(folder).as_uri(), auth=False)
        return create_app(settings).openapi()


if __name__ == "__main__":
    print(json.dumps(openapi(), indent=1))
