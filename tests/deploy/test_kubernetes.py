"""What deploy/kubernetes comes to is valid, and fits the programs that it starts."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
from pydantic_settings import CliApp

from services.common.presets import load_presets
from services.common.server import DRAIN_SECONDS
from services.common.settings import GpuServiceSettings, ServiceSettings
from services.orchestrator.api import health
from services.orchestrator.api.auth import OPEN_PATHS
from services.orchestrator.api.service import DRAIN_SECONDS as API_DRAIN_SECONDS
from services.orchestrator.api.settings import ApiSettings
from services.orchestrator.worker.alive import EVERY_SECONDS
from services.orchestrator.worker.runner import SUSPEND_SECONDS
from services.orchestrator.worker.settings import WorkerSettings
from tests.deploy.rendered import OVERLAYS, Container, Rendered, needs_kustomize, rendered
from tests.deploy.test_compose import SETTINGS

pytestmark = needs_kustomize

ROOT = Path(__file__).parents[2]
#: What KEDA and Prometheus's operator bring has no schema here.
OTHERS_KINDS = ("ScaledObject", "ServiceMonitor", "PodMonitor")
OLDEST = "1.29"
SECRETS = {
    "dualprocess-redis/url": "redis://:word@redis:6379/0",
    "dualprocess-redis/password": "word",
    "dualprocess-grpc/token": "t" * 64,
}


@pytest.fixture(params=OVERLAYS)
def overlay(request: pytest.FixtureRequest) -> Rendered:
    return rendered(request.param)


def settings_of(overlay: Rendered, name: str, monkeypatch: pytest.MonkeyPatch) -> ServiceSettings:
    """Those that the container's process would have."""
    container = overlay.containers[name]
    assert container.module is not None
    with monkeypatch.context() as environment:
        for variable, value in overlay.environment(container, SECRETS).items():
            environment.setenv(variable, value)
        flags = container.spec["command"][3:]
        return CliApp.run(SETTINGS[container.module], cli_args=flags)


@cache
def check_against_schemas(text: str) -> None:
    """Once for each object: overlays have most of them in common."""
    for version in (OLDEST, kubernetes_validate.latest_version()):
        kubernetes_validate.validate(json.loads(text), version, strict=True)


def probes(container: Container) -> dict[str, dict[str, Any]]:
    return {kind: container.spec[f"{kind}Probe"] for kind in ("startup", "readiness", "liveness")}


def test_every_object_is_one_that_the_cluster_takes(overlay: Rendered) -> None:
    for one in overlay.objects:
        if one["kind"] not in OTHERS_KINDS:
            check_against_schemas(json.dumps(one))


def test_no_container_is_root_or_may_become_it(overlay: Rendered) -> None:
    (namespace,) = overlay.of("Namespace").values()
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    for template in overlay.pods.values():
        pod = template["spec"]
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["securityContext"]["runAsUser"] > 0
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
    for container in overlay.containers.values():
        context = container.spec["securityContext"]
        assert context["readOnlyRootFilesystem"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}


def test_every_container_has_probes_and_bounds(overlay: Rendered) -> None:
    for container in overlay.containers.values():
        assert all(probes(container).values())
        resources = container.spec["resources"]
        assert {"cpu", "memory"} <= resources["requests"].keys()
        assert "memory" in resources["limits"]


@pytest.mark.parametrize("name", ["generator", "vlm"])
def test_a_model_is_asked_by_grpc_and_has_an_hour_to_load(overlay: Rendered, name: str) -> None:
    container = overlay.containers[name]
    port = container.spec["ports"][0]["containerPort"]
    for probe in probes(container).values():
        assert probe["grpc"] == {"port": port}
    startup = container.spec["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] >= 3600
    # The owner does not give up on it before the probe does.
    owner = overlay.of("Deployment")[container.pod]
    assert owner["spec"]["progressDeadlineSeconds"] > 3600


def test_the_api_is_alive_by_itself_and_ready_with_redis(overlay: Rendered) -> None:
    asked = {
        kind: probe["httpGet"]["path"] for kind, probe in probes(overlay.containers["api"]).items()
    }
    assert asked == {"startup": "/healthz", "readiness": "/readyz", "liveness": "/healthz"}
    assert set(asked.values()) <= {getattr(route, "path", None) for route in health.router.routes}
    assert set(asked.values()) <= OPEN_PATHS


def test_the_workers_probe_sees_whether_its_file_is_young(
    overlay: Rendered, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings = settings_of(overlay, "worker", monkeypatch)
    assert isinstance(settings, WorkerSettings)
    file = tmp_path / "alive"
    for probe in probes(overlay.containers["worker"]).values():
        # The command as it is, with a file of this test.
        command = [
            word.replace(str(settings.alive_file), str(file)) for word in probe["exec"]["command"]
        ]
        assert str(file) in command[-1]

        def passes(age: float | None, command: list[str] = command) -> bool:
            file.unlink(missing_ok=True)
            if age is not None:
                file.touch()
                os.utime(file, (time.time() - age,) * 2)
            return subprocess.run(command, stderr=subprocess.DEVNULL).returncode == 0

        assert [passes(age) for age in (None, 0, 3 * EVERY_SECONDS, 600)] == [
            False,
            True,
            True,
            False,
        ]


def test_pods_end_after_what_they_do_has_ended(overlay: Rendered) -> None:
    pods = {name: template["spec"] for name, template in overlay.pods.items()}
    grace = {name: pod["terminationGracePeriodSeconds"] for name, pod in pods.items()}
    # Worker and generator one after the other; what is suspended is stored meanwhile.
    assert grace["generator"] >= 2 * (SUSPEND_SECONDS + DRAIN_SECONDS)
    assert grace["vlm"] > DRAIN_SECONDS
    sleep, seconds = overlay.containers["api"].spec["lifecycle"]["preStop"]["exec"]["command"]
    assert sleep == "sleep"
    assert grace["api"] > int(seconds) + API_DRAIN_SECONDS
    # The generator outlives its worker, and is there before it.
    assert overlay.containers["generator"].is_sidecar
    assert overlay.containers["worker"].pod == "generator"


def test_processes_take_what_they_are_given_and_find_each_other(
    overlay: Rendered, monkeypatch: pytest.MonkeyPatch
) -> None:
    presets = load_presets(ROOT / "presets")
    api, worker, generator, vlm = (
        settings_of(overlay, name, monkeypatch) for name in ("api", "worker", "generator", "vlm")
    )
    assert isinstance(api, ApiSettings)
    assert isinstance(worker, WorkerSettings)
    assert isinstance(generator, GpuServiceSettings)
    assert isinstance(vlm, GpuServiceSettings)
    assert generator.preset in presets.generators
    assert vlm.preset in presets.vlms
    assert worker.generator == f"127.0.0.1:{generator.port}"
    service = overlay.of("Service")["vlm"]["spec"]
    assert service["clusterIP"] == "None"
    assert service["selector"] == {"app.kubernetes.io/name": "vlm"}
    assert worker.vlms == {vlm.preset: f"dns:///vlm:{vlm.port}"}
    assert (api.artifacts, api.redis_url) == (worker.artifacts, worker.redis_url)
    assert api.auth
    assert api.redis_strict
    for service_settings in (generator, vlm, worker):
        assert service_settings.credentials().token is not None
    for one in (api, generator, vlm):
        assert not one.insecure


def test_services_and_ingress_lead_to_ports_of_pods(overlay: Rendered) -> None:
    services = overlay.of("Service")
    for service in services.values():
        (pod,) = service["spec"]["selector"].values()
        names = {
            port["name"] for port in overlay.pods[pod]["spec"]["containers"][0].get("ports", [])
        }
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= names
    (ingress,) = overlay.of("Ingress").values()
    assert ingress["spec"]["tls"]
    for rule in ingress["spec"]["rules"]:
        for path in rule["http"]["paths"]:
            backend = path["backend"]["service"]
            ports = services[backend["name"]]["spec"]["ports"]
            assert backend["port"]["name"] in {port["name"] for port in ports}


def test_nodes_can_be_drained_one_pod_at_a_time(overlay: Rendered) -> None:
    budgets = overlay.of("PodDisruptionBudget")
    assert budgets.keys() == overlay.of("Deployment").keys()
    for name, budget in budgets.items():
        assert budget["spec"]["maxUnavailable"] == 1
        selected = budget["spec"]["selector"]["matchLabels"].items()
        assert selected <= overlay.pods[name]["metadata"]["labels"].items()


def test_models_and_what_they_compile_outlive_their_process(overlay: Rendered) -> None:
    for name in ("generator", "vlm"):
        container = overlay.containers[name]
        seen = overlay.environment(container, SECRETS)
        (mount,) = (one for one in container.spec["volumeMounts"] if one["name"] == "cache")
        for variable in ("HF_HOME", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"):
            assert seen[variable].startswith(f"{mount['mountPath']}/")
        variables = {one["name"]: one for one in container.spec["env"]}
        assert variables["HF_TOKEN"]["valueFrom"]["secretKeyRef"]["optional"]


@pytest.mark.parametrize("name", ["gpu", "keda"])
def test_real_models_get_a_gpu_each_and_never_the_cpu(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    overlay = rendered(name)
    for service in ("generator", "vlm"):
        container = overlay.containers[service]
        settings = settings_of(overlay, service, monkeypatch)
        assert isinstance(settings, GpuServiceSettings)
        assert settings.device == "cuda"
        assert container.spec["resources"]["limits"]["nvidia.com/gpu"] == 1
        pod = overlay.pods[container.pod]["spec"]
        assert pod["nodeSelector"] == {"nvidia.com/gpu.present": "true"}
        assert {one["key"] for one in pod["tolerations"]} == {"nvidia.com/gpu"}
        (cache,) = (one for one in pod["volumes"] if one["name"] == "cache")
        claim = cache["persistentVolumeClaim"]["claimName"]
        assert claim in overlay.of("PersistentVolumeClaim")
    worker = settings_of(overlay, "worker", monkeypatch)
    assert isinstance(worker, WorkerSettings)
    assert worker.artifacts.startswith("s3://")


def test_files_in_a_folder_are_shared_by_all_that_read_them() -> None:
    overlay = rendered("cpu")
    for name in ("api", "worker"):
        container = overlay.containers[name]
        folder = overlay.environment(container, SECRETS)["DUALPROCESS_ARTIFACTS"]
        (mount,) = (
            one for one in container.spec["volumeMounts"] if folder == f"file://{one['mountPath']}"
        )
        volumes = {one["name"]: one for one in overlay.pods[container.pod]["spec"]["volumes"]}
        claim = volumes[mount["name"]]["persistentVolumeClaim"]["claimName"]
        assert overlay.of("PersistentVolumeClaim")[claim]["spec"]["accessModes"] == [
            "ReadWriteMany"
        ]


def test_secrets_are_named_and_never_written_down(overlay: Rendered) -> None:
    assert not overlay.of("Secret")
    documented = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8").replace("\\\n", "")
    for name, key in overlay.secret_keys():
        made = re.search(rf"kubectl .*create secret generic {name} .*", documented)
        assert made is not None, name
        assert f"--from-literal={key}=" in made[0], (name, key)


def test_images_are_those_of_the_dockerfile(overlay: Rendered) -> None:
    dockerfile = (ROOT / "deploy" / "docker" / "Dockerfile").read_text(encoding="utf-8")
    targets = set(re.findall(r"AS (\w+)", dockerfile))
    for container in overlay.containers.values():
        image = container.spec["image"].partition(":")[0].rpartition("/")[2]
        if container.module is None:
            assert image == "redis"
        else:
            assert image in targets
            needs = (
                "models"
                if issubclass(SETTINGS[container.module], GpuServiceSettings)
                else "orchestrator"
            )
            assert image == needs
