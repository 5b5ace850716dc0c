"""What ``dualprocess up`` starts, before it starts it."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from services.common.gpus import Gpus
from services.common.presets import load_presets
from services.local.plan import Plan, made
from services.local.settings import LocalSettings
from services.local.stack import build
from services.orchestrator.settings import StoreSettings

VARIABLE = "DUALPROCESS_GRPC_TOKEN"


def plan(**asked: str) -> Plan:
    settings = LocalSettings.model_validate(asked)
    return made(settings, load_presets(), Gpus([], "there is none"), dict(os.environ))


PAIR = plan()


def test_the_children_share_a_token_that_no_command_line_shows(tmp_path: Path) -> None:
    children = build(LocalSettings(data=tmp_path), PAIR)
    tokens = {child.environment[VARIABLE] for child in children if VARIABLE in child.environment}
    (token,) = tokens
    assert len(token) == 64
    holders = {child.name for child in children if VARIABLE in child.environment}
    assert holders == {"vlm", "generator", "worker"}
    for child in children:
        assert not any(token in argument for argument in child.command)
        assert token not in repr(child)


@pytest.mark.parametrize("name", ["REDIS_URL", "DUALPROCESS_REDIS_URL"])
def test_a_redis_that_runs_already_is_used_and_its_password_kept_off_command_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    url = "redis://:secret@10.0.0.1:6379/0"
    monkeypatch.setenv(name, url)
    children = {child.name: child for child in build(LocalSettings(data=tmp_path), PAIR)}
    assert "redis" not in children
    for child in children.values():
        assert "secret" not in f"{child.command} {child!r}"
    for child in (children["api"], children["worker"]):
        with monkeypatch.context() as context:
            for variable, value in child.environment.items():
                context.setenv(variable, value)
            assert StoreSettings().redis_url == url


def test_the_page_comes_with_its_extra_unless_it_is_left_out(tmp_path: Path) -> None:
    def api(**chosen: bool) -> Sequence[str]:
        settings = LocalSettings.model_validate({"data": tmp_path, **chosen})
        return next(child.command for child in build(settings, PAIR) if child.name == "api")

    assert "--ui" in api(), "the extra is installed where the tests run"
    assert "--no-ui" in api(ui=False), "whatever the environment says"


def test_each_start_has_its_own_token(tmp_path: Path) -> None:
    first, second = (
        {child.name: child.environment for child in build(LocalSettings(data=tmp_path), PAIR)}
        for _ in range(2)
    )
    assert first["vlm"][VARIABLE] != second["vlm"][VARIABLE]


def test_gpu_services_stay_on_loopback_wherever_the_api_listens(tmp_path: Path) -> None:
    settings = LocalSettings(data=tmp_path, host="0.0.0.0", auth=True)  # noqa: S104
    hosts = {
        child.name: argument
        for child in build(settings, PAIR)
        for argument in child.command
        if argument.startswith("--host=")
    }
    assert hosts == {
        "vlm": "--host=127.0.0.1",
        "generator": "--host=127.0.0.1",
        "api": "--host=0.0.0.0",
    }


def test_every_generator_has_a_worker_that_reaches_every_vlm(tmp_path: Path) -> None:
    models = plan(generator="tiny-flux,flux-dev", vlm="tiny-idefics2,idefics2")
    children = {child.name: child for child in build(LocalSettings(data=tmp_path), models)}
    assert children.keys() - {"redis"} == {
        "vlm-tiny-idefics2",
        "vlm-idefics2",
        "generator-tiny-flux",
        "generator-flux-dev",
        "api",
        "worker-tiny-flux",
        "worker-flux-dev",
    }
    flags = {name: _flags(child.command) for name, child in children.items()}
    for generator in ("tiny-flux", "flux-dev"):
        worker = flags[f"worker-{generator}"]
        assert worker["--generator"].endswith(f":{flags[f'generator-{generator}']['--port']}")
        assert json.loads(worker["--vlms"]) == {
            vlm: f"127.0.0.1:{flags[f'vlm-{vlm}']['--port']}"
            for vlm in ("tiny-idefics2", "idefics2")
        }
    assert len({child["--port"] for child in flags.values() if "--port" in child}) == 5


def test_several_of_one_preset_have_a_card_a_number_and_a_worker_each(tmp_path: Path) -> None:
    models = plan(generator="tiny-flux:2", vlm="tiny-idefics2:2,idefics2", gpus="4-7,1")
    children = {child.name: child for child in build(LocalSettings(data=tmp_path), models)}
    cards = {
        name: child.environment.get("CUDA_VISIBLE_DEVICES") for name, child in children.items()
    }
    assert cards == {
        "redis": None,
        "vlm-1": "6",
        "vlm-2": "7",
        "vlm-3": "1",
        "generator-1": "4",
        "generator-2": "5",
        "api": None,
        "worker-1": None,
        "worker-2": None,
    }
    flags = {name: _flags(child.command) for name, child in children.items()}
    port = {name: child.get("--port") for name, child in flags.items()}
    for number in (1, 2):
        worker = flags[f"worker-{number}"]
        assert worker["--generator"] == f"127.0.0.1:{port[f'generator-{number}']}"
        assert json.loads(worker["--vlms"]) == {
            "tiny-idefics2": f"ipv4:127.0.0.1:{port['vlm-1']},127.0.0.1:{port['vlm-2']}",
            "idefics2": f"127.0.0.1:{port['vlm-3']}",
        }


def _flags(command: Sequence[str]) -> dict[str, str]:
    return dict(part.split("=", 1) for part in command if part.startswith("--") and "=" in part)
