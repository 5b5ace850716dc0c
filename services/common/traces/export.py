"""Where spans go, and what of them: never the words of whoever was served."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from importlib.metadata import entry_points

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import Status

log = logging.getLogger(__name__)

#: Of OTEL_EXPORTER_OTLP_PROTOCOL, by the names that exporters register under.
_OTLP = {"http/protobuf": "otlp_proto_http", "grpc": "otlp_proto_grpc"}
#: Addresses as they were sent: a path may hold a key by mistake, a webhook's is a secret.
_ADDRESSES = frozenset({"http.url", "http.target", "url.full", "url.path", "url.query"})


def exporter() -> SpanExporter | None:
    """The one that the environment names; ``None``, and a warning, for one that is not here."""
    name = os.environ.get("OTEL_TRACES_EXPORTER", "").strip() or "otlp"
    if name == "otlp":
        protocol = (
            os.environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "").strip()
            or os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL", "").strip()
            or "http/protobuf"
        )
        name = _OTLP.get(protocol, protocol)
    for found in entry_points(group="opentelemetry_traces_exporter", name=name):
        return Discreet(found.load()())
    log.warning(
        "nothing is traced: no exporter %r is installed; take OTEL_TRACES_EXPORTER=otlp with "
        "OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf, or install the exporter",
        name,
    )
    return None


class Discreet(SpanExporter):
    """Passes spans on without addresses, and without the text of errors, which can repeat what was
    sent."""

    def __init__(self, behind: SpanExporter) -> None:
        self._behind = behind

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return self._behind.export([_without_words(span) for span in spans])

    def shutdown(self) -> None:
        self._behind.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._behind.force_flush(timeout_millis)


def _without_words(span: ReadableSpan) -> ReadableSpan:
    attributes = span.attributes or {}
    return ReadableSpan(
        span.name,
        span.context,
        span.parent,
        span.resource,
        {name: value for name, value in attributes.items() if name not in _ADDRESSES},
        (),
        span.links,
        span.kind,
        None,
        Status(span.status.status_code),
        span.start_time,
        span.end_time,
        span.instrumentation_scope,
    )
