"""What the compose files start exists, takes what it is given, and may do no more than it must."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from pydantic_settings import CliApp

from services.common.presets import load_presets
from services.common.settings import GpuServiceSettings, ServiceSettings
from services.orchestrator.api.settings import ApiSettings
from services.orchestrator.doctor.models import DRIVERS
from services.orchestrator.worker.settings import WorkerSettings

ROOT = Path(__file__).parents[2]
GPU_FILES = [f"deploy/docker/gpus-{cards}.yml" for cards in (2, 4, 8)]
SETTINGS: dict[str, type[ServiceSettings]] = {
    "services.vlm": GpuServiceSettings,
    "services.generator": GpuServiceSettings,
    "services.orchestrator.api": ApiSettings,
    "services.orchestrator.worker": WorkerSettings,
}


def compose(*files: str) -> dict[str, Any]:
    """The services of the files, each over those before, with the default of every variable."""
    merged: dict[str, Any] = {}
    for file in files or ("docker-compose.yml",):
        text = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", (ROOT / file).read_text())
        for name, service in yaml.safe_load(text)["services"].items():
            merged[name] = _over(merged.get(name, {}), service)
    return merged


def _over(below: Any, above: Any) -> Any:
    """As Compose merges: mappings by name, all else is replaced."""
    if isinstance(below, dict) and isinstance(above, dict):
        return below | {name: _over(below.get(name), value) for name, value in above.items()}
    return above


OURS = {name: service for name, service in compose().items() if "build" in service}


#: Those of ours that run a module until they are stopped.
RUNNING = [name for name in OURS if name != "token"]


def configured(
    name: str, monkeypatch: pytest.MonkeyPatch, services: dict[str, Any] = OURS
) -> ServiceSettings:
    """The settings that the container's process would have."""
    _, _, module, *flags = services[name]["command"]
    with monkeypatch.context() as context:
        for variable, value in services[name].get("environment", {}).items():
            # Empty, as Compose gives it.
            context.setenv(variable, value or "")
        return CliApp.run(SETTINGS[module], cli_args=flags)


@pytest.mark.parametrize("name", RUNNING)
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
    stage = DOCKERFILE.partition(f"AS {OURS['api']['build']['target']}\n")[2].partition("FROM")[0]
    assert "orchestrator.lock" in stage
    assert "gradio" in locked("orchestrator")


def test_gpu_services_ask_for_the_token_that_the_first_start_made() -> None:
    maker = compose()["token"]
    assert maker["volumes"] == ["secrets:/run/secrets"]
    assert "dualprocess_grpc_token" in maker["command"][-1]
    for name in ("generator", "vlm", "worker"):
        assert "secrets:/run/secrets:ro" in OURS[name]["volumes"]
        assert OURS[name]["depends_on"]["token"] == {"condition": "service_completed_successfully"}
        assert "--insecure" not in OURS[name]["command"]


def test_the_images_copy_what_exists() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    for line in re.findall(r"^COPY (.+) \S+$", DOCKERFILE, re.MULTILINE):
        for source in line.split():
            assert (ROOT / source).exists()
            assert f"!{source}" in ignored
    targets = set(re.findall(r"AS (\w+)", DOCKERFILE))
    assert {service["build"]["target"] for service in OURS.values()} <= targets


DOCKERFILE = (ROOT / "deploy" / "docker" / "Dockerfile").read_text()
_PINNED = re.compile(r"[a-z./]+:[\w.-]+@sha256:[0-9a-f]{64}")


def test_images_are_pinned_by_their_content() -> None:
    bases = re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)
    outside = [base for base in bases if base != "source"]
    outside += [service["image"] for service in compose().values() if "image" in service]
    assert len(outside) == 2
    assert [name for name in outside if not _PINNED.fullmatch(name)] == []


@pytest.mark.parametrize("file", [None, *GPU_FILES])
def test_no_container_may_do_more_than_it_must(file: str | None) -> None:
    for name, service in compose("docker-compose.yml", *([file] if file else [])).items():
        assert int(service["user"].partition(":")[0]) > 0, name
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert "privileged" not in service
        assert service["mem_limit"]
        assert set(service["logging"]["options"]) == {"max-size", "max-file"}
        if name != "token":
            assert service["restart"] == "unless-stopped"
            assert service["stop_grace_period"]
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:")


def test_each_service_that_listens_is_asked_whether_it_is_well() -> None:
    for name, service in compose().items():
        if name in ("token", "worker"):
            continue
        test = service["healthcheck"]["test"]
        assert test[0] == "CMD"
        if name in ("generator", "vlm"):
            port = next(flag for flag in service["command"] if flag.startswith("--port="))
            assert test[1:] == [
                *("python", "-m", "services.common.healthy"),
                f"127.0.0.1:{port.removeprefix('--port=')}",
            ]
    worker = compose()["worker"]
    assert worker["depends_on"]["redis"] == {"condition": "service_healthy"}


def test_what_is_kept_lies_on_volumes_that_the_images_give_to_their_user() -> None:
    uid = OURS["generator"]["user"].partition(":")[0]
    assert f"useradd --uid {uid} " in DOCKERFILE
    made = re.search(r"install -d -o dualprocess -g dualprocess -m 0700 (.+)", DOCKERFILE)
    assert made
    for service in OURS.values():
        for volume in service["volumes"]:
            assert volume.split(":")[1] in made[1].split()
    cache = OURS["generator"]["environment"]["HF_HOME"]
    assert cache.startswith("/cache/")


@pytest.mark.parametrize("file", GPU_FILES)
def test_each_gpu_has_one_process_and_each_generator_a_worker(
    file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cards = int(re.sub(r"\D", "", file))
    services = compose("docker-compose.yml", file)
    on_cards = {name: service for name, service in services.items() if "deploy" in service}
    given = []
    for service in on_cards.values():
        (device,) = service["deploy"]["resources"]["reservations"]["devices"]
        given += device["device_ids"]
        assert service["environment"]["NVIDIA_REQUIRE_CUDA"] == "cuda>=13.0"
    assert sorted(given) == sorted(map(str, range(cards)))
    generators = {name for name in on_cards if name.startswith("generator")}
    vlms = set(on_cards) - generators
    driven = set()
    for name in (name for name in services if name.startswith("worker")):
        worker = configured(name, monkeypatch, services)
        assert isinstance(worker, WorkerSettings)
        assert worker.vlms == {"tiny-idefics2": "dns:///vlm:50052"}
        generator = worker.generator.removesuffix(":50051")
        assert generator in services[name]["depends_on"]
        driven.add(generator)
    assert driven == generators
    for name in vlms - {"vlm"}:
        assert services[name]["networks"] == {"default": {"aliases": ["vlm"]}}
    assert (len(generators), len(vlms)) == {2: (1, 1), 4: (3, 1), 8: (6, 2)}[cards]


def test_the_gpu_files_are_those_that_the_script_writes(tmp_path: Path) -> None:
    script = ROOT / "deploy" / "docker" / "gpus.py"
    subprocess.run([sys.executable, str(script), str(tmp_path)], check=True)
    written = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert written == {Path(file).name: (ROOT / file).read_text() for file in GPU_FILES}


def locked(image: str) -> dict[str, str]:
    """Name → version of everything that the image installs; each line has hashes."""
    text = (ROOT / "deploy" / "docker" / f"{image}.lock").read_text().replace("\\\n", " ")
    found = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            assert re.search(r"--hash=sha256:[0-9a-f]{64}\b", line), line
            name, version = line.split()[0].split("==")
            found[name] = version
    return found


@pytest.mark.parametrize(
    ("image", "extras"), [("orchestrator", ["ui"]), ("models", ["generator", "vlm"])]
)
def test_the_lock_has_all_that_the_package_needs_in_a_version_it_allows(
    image: str, extras: list[str]
) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = [*project["build-system"]["requires"], *project["project"]["dependencies"]]
    wanted += (ROOT / "constraints.txt").read_text().splitlines() if image == "models" else []
    while extras:
        for line in project["project"]["optional-dependencies"][extras.pop()]:
            requirement = Requirement(line)
            own = requirement.name == "dualprocess"
            extras += requirement.extras if own else []
            wanted += [] if own else [line]
    versions = locked(image)
    for line in wanted:
        if line.startswith("#"):
            continue
        requirement = Requirement(line)
        version = versions[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), f"{line}: {version}; make locks"
    assert ("torch" in versions) == (image == "models")


def test_the_driver_that_is_asked_for_is_that_of_the_locked_cuda() -> None:
    major = locked("models")["nvidia-cuda-runtime"].partition(".")[0]
    oldest, _ = DRIVERS[major]
    for text in (DOCKERFILE, *((ROOT / file).read_text() for file in GPU_FILES)):
        assert f"driver {oldest} or newer" in " ".join(text.replace("\n#", " ").split())
        assert f"CUDA {major}.0" in text
