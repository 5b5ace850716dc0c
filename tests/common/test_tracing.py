"""When traces are recorded, and what that costs where they are not."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

_CODE = """
import logging, sys
logging.basicConfig(level="INFO", format="%(message)s")
from services.common import channels, server, tracing
tracing.configure_tracing("vlm")
loaded = any(name.startswith("opentelemetry") for name in sys.modules)
print(tracing.is_on(), loaded, len(tracing.client_interceptors()), tracing.carried())
"""


def said(**environment: str) -> tuple[str, str]:
    plain = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    done = subprocess.run(
        [sys.executable, "-c", _CODE],
        env={**plain, **environment},
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    return done.stdout.strip(), done.stderr.strip()


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"OTEL_SERVICE_NAME": "mine"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": " "},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_SDK_DISABLED": "true"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_TRACES_EXPORTER": "none"},
    ],
)
def test_off_means_that_nothing_of_it_is_even_imported(environment: dict[str, str]) -> None:
    assert said(**environment) == ("False False 0 {}", "")


def test_an_exporter_that_is_not_here_is_a_warning_and_no_failure() -> None:
    told, warned = said(OTEL_TRACES_EXPORTER="pigeon")
    assert told.startswith("False")
    assert "no exporter 'pigeon' is installed; take OTEL_TRACES_EXPORTER=otlp" in warned


def test_an_address_to_send_them_to_is_enough() -> None:
    told, warned = said(OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9")
    assert told == "True True 4 {}"
    assert not warned
