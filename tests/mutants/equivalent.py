"""Mutants that no test can notice, or none should: each with its reason, so it is not counted."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Equivalent:
    """``line`` is a line of the file, stripped; any mutation of it, unless ``becomes`` is one."""

    path: str
    line: str
    why: str
    becomes: str = ""


_PACE = "a pace: how long something is waited for; another number is as right"

EQUIVALENT: tuple[Equivalent, ...] = (
    Equivalent("services/orchestrator/worker/app.py", "_REDIS_RETRIES = 60", _PACE),
    Equivalent("services/orchestrator/worker/app.py", "_DESCRIBE_SECONDS = 5.0", _PACE),
    Equivalent("services/orchestrator/worker/app.py", "_HEARTBEAT_SECONDS = 10.0", _PACE),
    Equivalent(
        "services/orchestrator/worker/lease.py",
        "_RETRY_SECONDS = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0)",
        _PACE,
    ),
    Equivalent("services/orchestrator/worker/runner.py", "_SUSPEND_SECONDS = 5.0", _PACE),
    Equivalent("services/orchestrator/worker/vlm.py", "SECONDS = 120.0", _PACE),
    Equivalent(
        "services/orchestrator/worker/vlm.py", "_RETRY_SECONDS = (0.2, 0.5, 1.0, 2.0, 5.0)", _PACE
    ),
    Equivalent("services/orchestrator/webhooks/addresses.py", "_RESOLVE_SECONDS = 5.0", _PACE),
    Equivalent("services/orchestrator/webhooks/post.py", "POST_SECONDS = 10.0", _PACE),
    Equivalent("services/orchestrator/webhooks/post.py", "_CONNECT_SECONDS = 4.0", _PACE),
    Equivalent("dualprocess/protocol.py", "RETRY_SECONDS = (0.2, 0.5, 1.0, 2.0, 4.0)", _PACE),
    Equivalent("dualprocess/protocol.py", "LONGEST_PAUSE_SECONDS = 30.0", _PACE),
    Equivalent("dualprocess/client.py", "timeout: float = 30.0,", _PACE),
    Equivalent("dualprocess/async_client.py", "timeout: float = 30.0,", _PACE),
)
