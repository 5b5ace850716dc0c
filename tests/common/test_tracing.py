"""When traces are recorded, and what that costs where they are not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import datetime

_CODE = """
import json, logging, os, sys
logging.basicConfig(level="INFO", format="%(message)s")
from services.common import channels, server, tracing
for environment in json.loads(sys.argv[1]):
    os.environ.update(environment)
    tracing.configure_tracing("vlm")
    loaded = any(name.startswith("opentelemetry") for name in sys.modules)
    print(tracing.is_on(), loaded, len(tracing.client_interceptors()), tracing.carried())
    for name in environment:
        del os.environ[name]
"""


def said(*environments: dict[str, str]) -> tuple[str, str]:
    """What one process tells of each, one after the other."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    done = subprocess.run(
        [sys.executable, "-c", _CODE, json.dumps(environments)],
        env=plain,
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    return done.stdout.strip(), done.stderr.strip()


def test_off_means_that_nothing_of_it_is_even_imported() -> None:
    endpoint = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}
    told, warned = said(
        {},
        {"OTEL_SERVICE_NAME": "mine"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": " "},
        endpoint | {"OTEL_SDK_DISABLED": "true"},
        endpoint | {"OTEL_TRACES_EXPORTER": "none"},
    )
    assert told.splitlines() == 5 * ["False False 0 {}"]
    assert warned == ""


def test_an_exporter_that_is_not_here_is_a_warning_and_no_failure() -> None:
    told, warned = said({"OTEL_TRACES_EXPORTER": "pigeon"})
    assert told.startswith("False")
    assert "no exporter 'pigeon' is installed; take OTEL_TRACES_EXPORTER=otlp" in warned


def test_an_address_to_send_them_to_is_enough() -> None:
    told, warned = said({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"})
    assert told == "True True 4 {}"
    assert not warned


_CALLING = """
import http.server, json, threading
import httpx
from opentelemetry import trace
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from services.common import tracing
from services.common.traces.export import Discreet
from services.common.traces.recording import Recording

heard = []
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        heard.append(self.headers["traceparent"])
        self.send_response(204)
        self.end_headers()
    def log_message(self, *_):
        pass

server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
memory = InMemorySpanExporter()
recording = Recording("api", Discreet(memory))
tracing.record(recording)
with tracing.job_span({}, waited_seconds=1.5, is_linked=False, attributes={"dualprocess.job": "x"}):
    httpx.get(f"http://127.0.0.1:{server.server_port}/secret?key=secret")
    told = tracing.trace_id()
    trace.get_current_span().record_exception(ValueError("a secret prompt"))
    trace.get_current_span().set_status(trace.StatusCode.ERROR, "a secret prompt")
# Part of nothing.
httpx.get(f"http://127.0.0.1:{server.server_port}/secret")
recording.close()
spans = [json.loads(span.to_json()) for span in memory.get_finished_spans()]
print(json.dumps({"spans": spans, "heard": heard, "told": told}))
"""


def test_calls_by_http_are_part_of_what_makes_them_and_tell_no_address() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _CALLING], capture_output=True, encoding="utf-8", check=True
    )
    seen = json.loads(done.stdout)
    spans = {span["name"]: span for span in seen["spans"]}
    assert spans.keys() == {"job", "queue", "GET"}
    job = spans["job"]["context"]
    for part in ("queue", "GET"):
        assert spans[part]["parent_id"] == job["span_id"]
        assert spans[part]["context"]["trace_id"] == job["trace_id"]
    assert seen["told"] == job["trace_id"].removeprefix("0x")
    assert seen["heard"][0].split("-")[1] == seen["told"]
    assert spans["job"]["status"]["status_code"] == "ERROR"
    waited = [datetime.fromisoformat(spans["queue"][end]) for end in ("start_time", "end_time")]
    assert 1.4 < (waited[1] - waited[0]).total_seconds() < 1.6
    assert "secret" not in json.dumps(seen["spans"])
