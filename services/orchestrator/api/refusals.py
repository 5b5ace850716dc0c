"""Refusals of middleware, which runs before there is a route."""

from __future__ import annotations

from starlette.types import Receive, Scope, Send

from dualprocess.schemas import Problem
from services.orchestrator.api.problems import respond

#: WebSocket's status for a request that breaks a rule.
_POLICY_VIOLATION = 1008


async def refuse(problem: Problem, scope: Scope, receive: Receive, send: Send) -> None:
    """Ends the request with the problem. A WebSocket is closed before it is opened."""
    if scope["type"] == "websocket":
        await send(
            {"type": "websocket.close", "code": _POLICY_VIOLATION, "reason": problem.title[:100]}
        )
    else:
        await respond(problem)(scope, receive, send)
