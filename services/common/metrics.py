"""Metrics of this process, for Prometheus: what every process shows, and where.

Labels name models, methods, routes and outcomes: never what somebody sent, nor who did.
"""

from __future__ import annotations

import logging

from prometheus_client import REGISTRY, disable_created_metrics, start_http_server

from services.common.addresses import host_port
from services.common.settings import GrpcSettings

log = logging.getLogger(__name__)

#: Seconds: from a call that touches no device up to the longest that a call may take.
CALL_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)

# When each counter began: a series more for each, which no query here reads.
disable_created_metrics()  # type: ignore[no-untyped-call]


def show_metrics(settings: GrpcSettings) -> None:
    """Serves them on ``--metrics-port`` from a thread of its own, until this process ends.

    Exits as ``settings.refuse`` does where it can't listen there.
    """
    if settings.metrics_port is None:
        return
    try:
        server, _ = start_http_server(settings.metrics_port, settings.metrics_host, REGISTRY)
    except OSError as error:
        address = host_port(settings.metrics_host, settings.metrics_port)
        settings.refuse(
            "metrics_port",
            f"can't listen on {address} ({error.strerror or error}); choose another, or leave it "
            "out to show no metrics",
        )
    log.info("metrics are on http://%s", host_port(settings.metrics_host, server.server_port))
