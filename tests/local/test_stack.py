"""What ``dualprocess up`` starts, before it starts it."""

from __future__ import annotations

from pathlib import Path

from services.local.settings import LocalSettings
from services.local.stack import build

VARIABLE = "DUALPROCESS_GRPC_TOKEN"


def test_the_children_share_a_token_that_no_command_line_shows(tmp_path: Path) -> None:
    children = build(LocalSettings(data=tmp_path))
    tokens = {child.environment[VARIABLE] for child in children if child.environment}
    (token,) = tokens
    assert len(token) == 64
    holders = {child.name for child in children if child.environment}
    assert holders == {"vlm", "generator", "worker"}
    for child in children:
        assert not any(token in argument for argument in child.command)
        assert token not in repr(child)


def test_each_start_has_its_own_token(tmp_path: Path) -> None:
    first, second = (
        {child.name: child.environment for child in build(LocalSettings(data=tmp_path))}
        for _ in range(2)
    )
    assert first["vlm"][VARIABLE] != second["vlm"][VARIABLE]


def test_gpu_services_stay_on_loopback_wherever_the_api_listens(tmp_path: Path) -> None:
    settings = LocalSettings(data=tmp_path, host="0.0.0.0", auth=True)  # noqa: S104
    hosts = {
        child.name: argument
        for child in build(settings)
        for argument in child.command
        if argument.startswith("--host=")
    }
    assert hosts == {
        "vlm": "--host=127.0.0.1",
        "generator": "--host=127.0.0.1",
        "api": "--host=0.0.0.0",
    }
