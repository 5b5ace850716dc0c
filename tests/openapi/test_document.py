"""A public linter finds nothing in the OpenAPI document."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.openapi.conftest import HERE, document, written

#: What the document must pass: the linter's own recommended rules, none of them left out.
RULES = "recommended"


@pytest.mark.skipif(shutil.which("npm") is None, reason="needs Node with npm")
@pytest.mark.parametrize("auth", [False, True], ids=["without keys", "with keys"])
def test_it_passes_the_recommended_rules_of_a_public_linter(
    node_modules: Path, tmp_path: Path, auth: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDOCLY_TELEMETRY", "off")
    monkeypatch.setenv("REDOCLY_SUPPRESS_UPDATE_NOTICE", "true")
    linter = str(node_modules / ".bin" / "redocly")
    command = [linter, "lint", f"--extends={RULES}", "--format=json"]
    command.append(str(written(tmp_path, auth=auth)))
    done = subprocess.run(command, cwd=HERE, capture_output=True, text=True)
    told = json.loads(done.stdout)
    assert told["problems"] == []
    assert told["totals"] == {"errors": 0, "warnings": 0, "ignored": 0}


def test_every_operation_has_a_name_for_generated_clients_and_a_known_tag(tmp_path: Path) -> None:
    described = document(tmp_path, auth=False)
    known = {tag["name"] for tag in described["tags"]}
    assert all(tag["description"] for tag in described["tags"])
    used = set()
    for path, operations in described["paths"].items():
        for method, operation in operations.items():
            # A new route needs a line in document.py.
            assert "v1" not in operation["operationId"], f"{method} {path} has no name"
            assert operation["description"]
            used |= set(operation["tags"])
    assert used == known
