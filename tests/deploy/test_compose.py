"""What the compose file starts exists, and takes what it is given."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic_settings import CliApp

from services.common.presets import load_presets
from services.common.settings import GpuServiceSettings, ServiceSettings
from services.orchestrator.api.settings import ApiSettings
from services.orchestrator.worker.settings import WorkerSettings

ROOT = Path(__file__).parents[2]
SETTINGS: dict[str, type[ServiceSettings]] = {
    "services.vlm": GpuServiceSettings,
    "services.generator": GpuServiceSettings,
    "services.orchestrator.api": ApiSettings,
    "services.orchestrator.worker": WorkerSettings,
}


def compose() -> dict[str, Any]:
    """The file's services, with the default of every variable."""
    text = (ROOT / "docker-compose.yml").read_text()
    listed: dict[str, Any] = yaml.safe_load(re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text))["services"]
    return listed


OURS = {name: service for name, service in compose().items() if "build" in service}


def configured(name: str, monkeypatch: pytest.MonkeyPatch) -> ServiceSettings:
    """The settings that the container's process would have."""
    _, _, module, *flags = OURS[name]["command"]
    for variable, value in OURS[name].get("environment", {}).items():
        monkeypatch.setenv(variable, value)
    return CliApp.run(SETTINGS[module], cli_args=flags)


@pytest.mark.parametrize("name", OURS)
def test_each_container_runs_a_module_with_flags_it_knows(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = OURS[name]["command"][2]
    assert (ROOT / module.replace(".", "/") / "__main__.py").exists()
    configured(name, monkeypatch)


def test_containers_find_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = configured("worker", monkeypatch)
    assert isinstance(worker, WorkerSettings)
    served = {}
    for name in ("generator", "vlm"):
        settings = configured(name, monkeypatch)
        assert isinstance(settings, GpuServiceSettings)
        served[name] = (settings.preset, f"{name}:{settings.port}")
    assert worker.generator == served["generator"][1]
    assert worker.vlms == {served["vlm"][0]: f"dns:///{served['vlm'][1]}"}
    presets = load_presets(ROOT / "presets")
    assert served["generator"][0] in presets.generators
    assert served["vlm"][0] in presets.vlms


def test_the_api_serves_the_page_that_its_image_has(monkeypatch: pytest.MonkeyPatch) -> None:
    api = configured("api", monkeypatch)
    assert isinstance(api, ApiSettings)
    assert api.ui
    dockerfile = (ROOT / "deploy" / "docker" / "Dockerfile").read_text()
    stage = dockerfile.partition(f"AS {OURS['api']['build']['target']}\n")[2]
    assert "'.[ui,otel]'" in stage.partition("FROM")[0]


def test_gpu_services_ask_for_the_token_that_the_first_start_made() -> None:
    maker = compose()["token"]
    assert maker["volumes"] == ["secrets:/run/secrets"]
    assert "dualprocess_grpc_token" in maker["command"][-1]
    for name in ("generator", "vlm", "worker"):
        assert "secrets:/run/secrets:ro" in OURS[name]["volumes"]
        assert OURS[name]["depends_on"]["token"] == {"condition": "service_completed_successfully"}
        assert "--insecure" not in OURS[name]["command"]


def test_the_image_copies_what_exists() -> None:
    dockerfile = (ROOT / "deploy" / "docker" / "Dockerfile").read_text()
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    for line in re.findall(r"^COPY (.+) \S+$", dockerfile, re.MULTILINE):
        for source in line.split():
            assert (ROOT / source).exists()
            assert f"!{source}" in ignored
    targets = set(re.findall(r"AS (\w+)", dockerfile))
    assert {service["build"]["target"] for service in OURS.values()} <= targets
