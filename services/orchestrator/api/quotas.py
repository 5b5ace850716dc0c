"""Checks one request against its key's quotas. The queue checks the quotas that count jobs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

from dualprocess.schemas import FieldError, WorkPart
from services.orchestrator.api.auth import Caller
from services.orchestrator.api.problems import (
    QUOTA_RETRY_AFTER_SECONDS,
    InvalidSpec,
    ProblemError,
)
from services.orchestrator.store.quotas import WorkExceeded
from services.orchestrator.work import Work

#: The first field to look at for each part of the work, and all that makes the part smaller.
_SMALLER: Mapping[WorkPart, tuple[str, str]] = {
    WorkPart.TRAINING: (
        "optimizer.steps",
        "lower optimizer.steps, optimizer.accumulate, optimizer.batch or "
        "image.num_inference_steps, or ask for a smaller image.width and image.height",
    ),
    WorkPart.TEACHING: (
        "questions",
        "ask fewer questions, name fewer VLMs in vlm, write 0 for guard.worst_case, or lower "
        "optimizer.steps, optimizer.accumulate or optimizer.batch",
    ),
    WorkPart.PREVIEWS: ("eval.every", "raise eval.every, or write 0 there for no previews"),
    WorkPart.EVALUATION: (
        "eval.images",
        "lower eval.images or image.num_inference_steps, or ask for a smaller image.width and "
        "image.height",
    ),
    WorkPart.PICTURES: (
        "seeds",
        "send fewer seeds, lower image.num_inference_steps, or ask for a smaller image.width and "
        "image.height",
    ),
    WorkPart.SCORING: (
        "questions",
        "ask fewer questions about fewer images (eval.images, seeds), or name fewer VLMs",
    ),
    WorkPart.PROMPTS: ("prompts", "send fewer prompts"),
    WorkPart.WORDS: (
        "vlm",
        "ask fewer questions, lower max_new_tokens or send a smaller image, where the request has "
        "these; what a VLM writes has a length of its own",
    ),
}


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


def check_work(caller: Caller, work: Work, most: int) -> None:
    """Raises ``InvalidSpec`` for one job of more work than the key may ever have, or than the
    service takes, ``most``, if that is not 0."""
    limits = [
        ("this service takes at most", most),
        ("the quota work of this key is", _quota(caller)),
    ]
    for whose, limit in limits:
        if limit and work.total > limit:
            message = f"the job comes to {work.total:,} of work; {whose} {limit:,}. {smaller(work)}"
            raise InvalidSpec(FieldError(field=_SMALLER[work.largest][0], message=message))


def check_batch_work(caller: Caller, work: Work, field: str) -> None:
    """Raises ``InvalidSpec`` for jobs that together are more work than the key may ever have."""
    if (limit := _quota(caller)) and work.total > limit:
        message = (
            f"come to {work.total:,} of work together; the quota work of this key is {limit:,}: "
            f"send several batches, one behind the other, or smaller jobs. {smaller(work)}"
        )
        raise InvalidSpec(FieldError(field=field, message=message))


@contextlib.contextmanager
def admitting(work: Work) -> Iterator[None]:
    """Around a submission: one that doesn't fit into what the key's quota of work leaves is a 429
    that says how much that is, and what would be less."""
    try:
        yield
    except WorkExceeded as error:
        raise ProblemError(
            429,
            "The quota of work is used up",
            f"This request comes to {work.total:,} of work; of this key's {error.limit:,} there is "
            f"{error.left:,.3f} left until one of its jobs ends. Wait for that, cancel one, or ask "
            f"for less. {smaller(work)}",
            {"Retry-After": str(QUOTA_RETRY_AFTER_SECONDS)},
        ) from error


def smaller(work: Work) -> str:
    """What most of the work is for, and what makes it less."""
    part = work.largest
    return f"{work.share(part):.0%} of it is {part}: {_SMALLER[part][1]}."


def _quota(caller: Caller) -> int | None:
    return caller.quotas.work if caller.quotas else None
