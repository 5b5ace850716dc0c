"""The objects that an overlay of deploy/kubernetes comes to, as the cluster would get them."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2] / "deploy" / "kubernetes"
OVERLAYS = ("cpu", "gpu", "keda")

_NAME = "app.kubernetes.io/name"


def _renderer() -> list[str] | None:
    """What of this machine renders components: kustomize, or a kubectl of the last years."""
    if kustomize := shutil.which("kustomize"):
        return [kustomize, "build"]
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        return None
    told = subprocess.run([kubectl, "version", "--client"], capture_output=True, text=True)
    return [kubectl, "kustomize"] if "Kustomize Version: v5" in told.stdout else None


RENDERER = _renderer()
needs_kustomize = pytest.mark.skipif(
    RENDERER is None, reason="needs kustomize, or a kubectl that has version 5 of it"
)


@dataclass(frozen=True)
class Container:
    """``is_sidecar``: it starts before the pod's others, and ends after them."""

    pod: str
    spec: Mapping[str, Any]
    is_sidecar: bool

    @property
    def name(self) -> str:
        return str(self.spec["name"])

    @property
    def module(self) -> str | None:
        """Of this repository, that it runs."""
        command = self.spec["command"]
        return command[2] if command[:2] == ["python", "-m"] else None


@dataclass(frozen=True)
class Rendered:
    objects: Sequence[Mapping[str, Any]]

    def of(self, kind: str) -> dict[str, Mapping[str, Any]]:
        """By name."""
        return {one["metadata"]["name"]: one for one in self.objects if one["kind"] == kind}

    @property
    def pods(self) -> dict[str, Mapping[str, Any]]:
        """The template of every pod, by the name that its labels say."""
        owners = [*self.of("Deployment").values(), *self.of("StatefulSet").values()]
        templates = [owner["spec"]["template"] for owner in owners]
        return {template["metadata"]["labels"][_NAME]: template for template in templates}

    @property
    def containers(self) -> dict[str, Container]:
        found = list[Container]()
        for pod, template in self.pods.items():
            spec = template["spec"]
            found += [Container(pod, one, False) for one in spec["containers"]]
            found += [
                Container(pod, one, one.get("restartPolicy") == "Always")
                for one in spec.get("initContainers", [])
            ]
        return {container.name: container for container in found}

    def environment(self, container: Container, secrets: Mapping[str, str]) -> dict[str, str]:
        """What the container's process sees. ``secrets`` are by ``name/key``; optional ones are
        missing."""
        seen = dict[str, str]()
        maps = self.of("ConfigMap")
        for source in container.spec.get("envFrom", []):
            if "configMapRef" in source:
                seen |= maps[source["configMapRef"]["name"]]["data"]
            else:
                assert source["secretRef"]["optional"]
        for variable in container.spec.get("env", []):
            value = variable.get("value")
            match variable.get("valueFrom"):
                case {"configMapKeyRef": ref}:
                    value = maps[ref["name"]]["data"][ref["key"]]
                case {"secretKeyRef": {"optional": True}}:
                    continue
                case {"secretKeyRef": ref}:
                    value = secrets[f"{ref['name']}/{ref['key']}"]
                case {"fieldRef": {"fieldPath": "metadata.name"}}:
                    value = f"{container.pod}-x"
            assert isinstance(value, str), variable
            seen[variable["name"]] = re.sub(r"\$\((\w+)\)", lambda m: seen[m[1]], value)
        return seen

    def secret_keys(self) -> Iterator[tuple[str, str]]:
        """Name and key of every secret that a container can't start without."""
        for container in self.containers.values():
            for variable in container.spec.get("env", []):
                ref = variable.get("valueFrom", {}).get("secretKeyRef")
                if ref is not None and not ref.get("optional"):
                    yield ref["name"], ref["key"]


@cache
def rendered(overlay: str) -> Rendered:
    assert RENDERER is not None
    command = [*RENDERER, str(ROOT / "overlays" / overlay)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return Rendered([one for one in yaml.safe_load_all(done.stdout) if one is not None])
