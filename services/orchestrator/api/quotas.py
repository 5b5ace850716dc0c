"""Checks one request against its key's quotas. The queue checks the quotas that count jobs."""

from __future__ import annotations

from dualprocess.schemas import FieldError
from services.orchestrator.api.auth import Caller
from services.orchestrator.api.problems import InvalidSpec


def check_batch(caller: Caller, jobs: int, field: str) -> None:
    """Raises ``InvalidSpec`` for more jobs than the key may ever have queued."""
    if caller.quotas and jobs > caller.quotas.queued:
        message = (
            f"make {jobs:,} jobs; the quota queued of this key is {caller.quotas.queued:,}: "
            "send several batches"
        )
        raise InvalidSpec(FieldError(field=field, message=message))


def check_steps(caller: Caller, steps: int) -> None:
    """Raises ``InvalidSpec`` for more steps than the key may ask for; waiting would not help."""
    if caller.quotas and steps > caller.quotas.steps:
        message = f"is {steps}; the quota steps of this key is {caller.quotas.steps}: ask for fewer"
        raise InvalidSpec(FieldError(field="optimizer.steps", message=message))
