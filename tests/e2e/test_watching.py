"""What Prometheus sees of the whole service."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from dualprocess import Client, Job
from tests.e2e.conftest import red_circle
from tests.e2e.stack import Stack
from tests.prometheus import (
    MONITORING,
    Prometheus,
    needs_prometheus,
    needs_promtool,
    promtool,
    scraping,
)

pytestmark = pytest.mark.timeout(240)


def expressions() -> list[str]:
    """All that the dashboard asks."""
    dashboard = json.loads((MONITORING / "dashboard.json").read_text(encoding="utf-8"))
    return [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]


def metrics(stack: Stack) -> dict[str, str]:
    """What each process shows, by its name."""
    listed = json.loads((stack.data / "metrics" / "targets.json").read_text(encoding="utf-8"))
    return {
        one["labels"]["process"]: httpx.get(f"http://{one['targets'][0]}/metrics").text
        for one in listed
    }


@pytest.fixture(scope="module")
def job(stack: Stack) -> Iterator[Job]:
    """One that has ended; beside it one waits for a VLM that nobody serves."""
    with Client(stack.url) as client:
        waiting = client.submit(red_circle().model_copy(update={"vlm": "idefics2"}))
        yield client.wait(client.submit(red_circle(steps=4)).id)
        client.cancel(waiting.id)


@pytest.mark.usefixtures("job")
def test_every_process_counts_its_part_of_a_job(stack: Stack) -> None:
    shown = metrics(stack)
    assert shown.keys() == {"api", "vlm", "generator", "worker"}

    def value(process: str, series: str) -> float:
        found = re.search(rf"^{re.escape(series)} (\S+)$", shown[process], re.MULTILINE)
        assert found, f"{process} shows no {series}"
        return float(found[1])

    for phase in ("forward", "vlm", "wire", "backward", "total"):
        series = f'dualprocess_step_seconds_count{{generator="tiny-flux",phase="{phase}"}}'
        assert value("generator", series) >= 4
    guided = '{code="OK",method="Guide",vlm="tiny-idefics2"}'
    assert value("generator", f"dualprocess_vlm_call_seconds_count{guided}") >= 4
    scored = '{code="OK",method="Score",vlm="tiny-idefics2"}'
    assert value("worker", f"dualprocess_vlm_call_seconds_count{scored}") >= 2
    assert value("vlm", 'dualprocess_call_seconds_count{code="OK",method="Guide"}') >= 4
    assert value("vlm", 'dualprocess_calls_in_flight{method="Guide"}') == 0
    assert value("worker", 'dualprocess_jobs_ended_total{outcome="succeeded"}') >= 1
    waited = '{generator="tiny-flux",vlms="tiny-idefics2"}'
    assert value("worker", f"dualprocess_queue_wait_seconds_count{waited}") >= 1
    depth = '{generator="tiny-flux",vlms="idefics2"}'
    assert value("api", f"dualprocess_queue_depth{depth}") == 1
    assert value("api", f"dualprocess_queue_head_wait_seconds{depth}") > 0
    asked = '{method="POST",route="/v1/jobs",status="202"}'
    assert value("api", f"dualprocess_http_request_seconds_count{asked}") >= 2
    for process in ("generator", "vlm"):
        assert value(process, 'dualprocess_device_memory_used_bytes{device="cpu"}') > 1e7
    assert value("api", "dualprocess_workers_live") == 1
    told_once = [name for name, text in shown.items() if "dualprocess_workers_live" in text]
    assert told_once == ["api"]


@pytest.mark.usefixtures("job")
def test_no_metric_has_what_somebody_sent(stack: Stack) -> None:
    for text in metrics(stack).values():
        assert not re.search(r"circle|red\?|/v1/jobs/[0-9a-z]{26}", text)


@needs_promtool
@pytest.mark.usefixtures("job")
def test_promtool_has_nothing_against_the_metrics(stack: Stack) -> None:
    for process, text in metrics(stack).items():
        ours = [line for line in text.splitlines() if re.match(r"(# \w+ )?dualprocess_", line)]
        assert ours
        assert promtool("check", "metrics", fed="\n".join(ours) + "\n") == "", process


@pytest.fixture(scope="module")
def prometheus(
    stack: Stack, tmp_path_factory: pytest.TempPathFactory, job: Job
) -> Iterator[Prometheus]:
    folder: Path = tmp_path_factory.mktemp("prometheus")
    with scraping(stack.data / "metrics" / "targets.json", folder) as server:
        # A rate takes two looks.
        server.until('count_over_time(up{process="api"}[1m]) > 3')
        yield server


@needs_prometheus
def test_each_query_of_the_dashboard_has_an_answer(prometheus: Prometheus) -> None:
    asked = expressions()
    assert len(asked) > 20
    for expression in asked:
        assert prometheus.until(expression.replace("$__rate_interval", "1m")), expression


@needs_prometheus
def test_the_alerts_ask_for_what_there_is_and_are_quiet(prometheus: Prometheus) -> None:
    (group,) = prometheus.get("rules?type=alert")["groups"]
    known = set(prometheus.get("label/__name__/values"))
    for rule in group["rules"]:
        assert rule["health"] in ("ok", "unknown"), rule
        assert set(re.findall(r"\bdualprocess_\w+", rule["query"])) <= known
    assert prometheus.query('ALERTS{alertstate="firing"}') == []
    assert {one["value"][1] for one in prometheus.query("up")} == {"1"}
