"""A request's route as it is documented, for logs and labels: never the path as it was sent, which
may hold a key, and of which anybody can send as many as they like."""

from __future__ import annotations

from starlette.types import Scope

from services.orchestrator.api.document import template_at
from services.orchestrator.route_path import route_path
from services.orchestrator.ui import paths


def shown_route(scope: Scope) -> str | None:
    """Like ``/v1/jobs/{job_id}``, or ``/ui`` for all that is the page's; ``None`` for no route."""
    path = route_path(scope)
    return paths.ROOT if paths.is_page(path) else template_at(scope["app"], path)
