"""Generators and VLMs by what is asked for: to none and back."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from services.orchestrator.store import redis as keys
from services.orchestrator.worker.settings import WorkerSettings
from tests.deploy.rendered import needs_kustomize, rendered

pytestmark = needs_kustomize


def scaled(name: str) -> dict[str, Any]:
    return dict(rendered("keda").of("ScaledObject")[name]["spec"])


def queue(generator: str, *vlms: str) -> tuple[str, str]:
    """Its labels in /metrics."""
    name = keys.queue_key(generator, vlms).rpartition(":")[2]
    labels = name.partition("|")
    return labels[0], labels[2]


@pytest.mark.parametrize("name", ["generator", "vlm"])
def test_replicas_go_to_none_and_are_kedas_to_say(name: str) -> None:
    spec = scaled(name)
    assert spec["scaleTargetRef"] == {"name": name}
    assert "replicas" not in rendered("keda").of("Deployment")[name]["spec"]
    assert spec["minReplicaCount"] == 0
    (trigger,) = spec["triggers"]
    assert float(trigger["metadata"]["activationThreshold"]) == 0
    # Without an answer nothing that runs is taken away.
    assert trigger["metadata"]["ignoreNullValues"] == "false"
    assert spec["fallback"]["replicas"] >= 1


def test_a_replica_more_comes_for_each_workers_slots() -> None:
    (trigger,) = scaled("generator")["triggers"]
    assert int(trigger["metadata"]["threshold"]) == WorkerSettings.model_fields["slots"].default


@pytest.mark.parametrize(
    ("name", "label", "counted", "left_out"),
    [
        (
            "generator",
            "generator",
            [queue("flux-schnell", "idefics2"), queue("", "idefics2")],
            [queue("flux-dev", "idefics2")],
        ),
        (
            "vlm",
            "vlms",
            [queue("flux-schnell", "idefics2"), queue("a", "gemma3", "idefics2", "pixtral")],
            [queue("flux-schnell", "idefics2x"), queue("flux-schnell", "tiny-idefics2")],
        ),
    ],
)
def test_queues_that_need_it_are_counted_and_no_others(
    name: str, label: str, counted: list[tuple[str, str]], left_out: list[tuple[str, str]]
) -> None:
    (trigger,) = scaled(name)["triggers"]
    query = trigger["metadata"]["query"]
    (pattern,) = re.findall(rf'{label}=~"([^"]*)"', query)
    place = ("generator", "vlms").index(label)
    assert all(re.fullmatch(pattern, labels[place]) for labels in counted)
    assert not any(re.fullmatch(pattern, labels[place]) for labels in left_out)
    # Both that wait and that run: see what /metrics tells in tests/orchestrator/test_keys.py.
    (metrics,) = re.findall(r'__name__=~"([^"]*)"', query)
    for metric in ("dualprocess_queue_depth", "dualprocess_queue_running"):
        assert re.fullmatch(metrics, metric)


PROMTOOL = shutil.which("promtool")
Counts = dict[tuple[str, str], tuple[int, int]]


def series(counts: Counts) -> list[dict[str, str]]:
    """As two API processes tell them: of each queue what waits and what runs."""
    told = {"dualprocess_jobs_running{%s}": sum(running for _, running in counts.values())}
    for (generator, vlms), (waiting, running) in counts.items():
        labels = f'generator="{generator}",vlms="{vlms}"'
        told[f"dualprocess_queue_depth{{%s,{labels}}}"] = waiting
        told[f"dualprocess_queue_running{{%s,{labels}}}"] = running
    return [
        {"series": name % f'namespace="dualprocess",instance="{instance}"', "values": f"{value}x2"}
        for name, value in told.items()
        for instance in ("one", "other")
    ]


@pytest.mark.skipif(PROMTOOL is None, reason="needs promtool: apt-get install prometheus")
def test_prometheus_answers_with_the_jobs_there_are(tmp_path: Path) -> None:
    cases: list[tuple[Counts | None, int | None, int | None]] = [
        # Nothing is told while no API process answers, and all is 0 before the first job.
        (None, None, None),
        ({}, 0, 0),
        ({("flux-schnell", "idefics2"): (3, 2)}, 5, 5),
        ({("flux-schnell", "idefics2"): (0, 1)}, 1, 1),
        ({("", "idefics2"): (1, 0), ("flux-dev", "gemma3+idefics2"): (4, 0)}, 1, 5),
    ]
    queries = [scaled(name)["triggers"][0]["metadata"]["query"] for name in ("generator", "vlm")]
    tests = [
        {
            "interval": "1m",
            "input_series": [] if counts is None else series(counts),
            "promql_expr_test": [
                {
                    "expr": query,
                    "eval_time": "1m",
                    "exp_samples": [] if jobs is None else [{"labels": "{}", "value": jobs}],
                }
                for query, jobs in zip(queries, wanted, strict=True)
            ],
        }
        for counts, *wanted in cases
    ]
    file = tmp_path / "tests.yaml"
    file.write_text(yaml.safe_dump({"rule_files": [], "tests": tests}), encoding="utf-8")
    assert PROMTOOL is not None
    done = subprocess.run([PROMTOOL, "test", "rules", file], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_finds_the_api_and_shows_a_key() -> None:
    overlay = rendered("keda")
    (monitor,) = overlay.of("ServiceMonitor").values()
    service = overlay.of("Service")["api"]
    wanted = monitor["spec"]["selector"]["matchLabels"].items()
    assert wanted <= service["metadata"]["labels"].items()
    (endpoint,) = monitor["spec"]["endpoints"]
    assert endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}
    assert endpoint["path"] == "/metrics"
    assert endpoint["authorization"]["type"] == "Bearer"


def test_prometheus_finds_every_generator_worker_and_vlm() -> None:
    overlay = rendered("keda")
    (monitor,) = overlay.of("PodMonitor").values()
    (wanted,) = monitor["spec"]["selector"]["matchExpressions"]
    asked = {endpoint["port"] for endpoint in monitor["spec"]["podMetricsEndpoints"]}
    found = {}
    for container in overlay.containers.values():
        labels = overlay.pods[container.pod]["metadata"]["labels"]
        flags = dict(
            flag.split("=", 1) for flag in container.spec["command"] if flag.startswith("--metrics")
        )
        if labels[wanted["key"]] in wanted["values"]:
            ports = {port["name"]: port["containerPort"] for port in container.spec["ports"]}
            (name,) = asked & ports.keys()
            found[container.module] = ports[name] == int(flags["--metrics-port"])
            assert flags["--metrics-host"] == "0.0.0.0"  # noqa: S104
    assert found == {
        "services.generator": True,
        "services.orchestrator.worker": True,
        "services.vlm": True,
    }
