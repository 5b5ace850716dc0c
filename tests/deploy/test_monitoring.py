"""The alerts are rules that Prometheus takes, fire when they should, and each has its runbook."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from tests.prometheus import MONITORING, needs_promtool, promtool

ROOT = Path(__file__).parents[2]


def alerts() -> list[dict[str, Any]]:
    rules = yaml.safe_load((MONITORING / "alerts.yml").read_text(encoding="utf-8"))
    return [rule for group in rules["groups"] for rule in group["rules"]]


@needs_promtool
def test_promtool_takes_the_configuration_and_the_rules() -> None:
    assert promtool("check", "config", "prometheus.yml") == ""
    assert promtool("check", "rules", "--lint-fatal", "alerts.yml") == ""


@needs_promtool
def test_each_alert_fires_in_its_trouble_and_only_then() -> None:
    assert promtool("test", "rules", "alerts_test.yml") == ""


def test_each_alert_is_tried_in_both_ways() -> None:
    tried = (MONITORING / "alerts_test.yml").read_text(encoding="utf-8")
    for rule in alerts():
        assert f"alertname: {rule['alert']}}}" in tried
        assert f'alertname="{rule["alert"]}"' in tried


def test_each_alert_has_its_row_in_the_runbook() -> None:
    page = (ROOT / "docs" / "watching.md").read_text(encoding="utf-8")
    told = set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE))
    assert {rule["alert"] for rule in alerts()} <= told
