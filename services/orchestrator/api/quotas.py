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

#: For each part of the work: the most important field, and how to make the part smaller.
_SMALLER: Mapping[WorkPart, tuple[str, str]] = {
    WorkPart.TRAINING: (
        "optimizer.steps",
        "lower optimizer.steps, optimizer.accumulate, optimizer.batch or "
        "image.num_inference_steps, or ask for a smaller image.width and image.height",
    ),
    WorkPart.TEACHING: (
        "questions",
        "ask fewer questions, name fewer VLMs in vlm, set guard.worst_case to 0, or lower "
        "optimizer.steps, optimizer.accumulate or optimizer.batch",
    ),
    WorkPart.PREVIEWS: ("eval.every", "raise eval.every, or set it to 0 for no previews"),
    WorkPart.EVALUATION: (
        "eval.images",
        "lower eval.images or image.num_inference_steps, or ask for a smaller image.width and "
        "image.height",
    ),
    WorkPart.PICTURES: (
        "seeds",
        "send fewer seeds or a smaller best_of, lower image.num_inference_steps, or ask for a "
        "smaller image.width and image.height",
    ),
    WorkPart.SCORING: (
        "questions",
        "ask fewer questions about fewer images (eval.images, seeds, best_of), or name fewer VLMs",
    ),
    WorkPart.PROMPTS: ("prompts", "send fewer prompts"),
    WorkPart.WORDS: (
        "vlm",
        "ask fewer questions, lower max_new_tokens or send a smaller image, if the request has "
        "these fields; the length of questions and prompts that a VLM writes is fixed",
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
    """Raises ``InvalidSpec`` for a job with more work than the key's whole quota, or than ``most``,
    the service's own limit, if that is not 0."""
    limits = [
        ("this service", most),
        ("the quota of this key", _quota(caller)),
    ]
    for whose, limit in limits:
        if limit and work.total > limit:
            message = (
                f"the job has {work.total:,} of work; {whose} allows at most {limit:,}. "
                f"{smaller(work)}"
            )
            raise InvalidSpec(FieldError(field=_SMALLER[work.largest][0], message=message))


def check_batch_work(caller: Caller, work: Work, field: str) -> None:
    """Raises ``InvalidSpec`` for jobs that together have more work than the key's whole quota."""
    if (limit := _quota(caller)) and work.total > limit:
        message = (
            f"have {work.total:,} of work together; the quota of this key allows at most "
            f"{limit:,}. Send several batches, one after the other, or smaller jobs. "
            f"{smaller(work)}"
        )
        raise InvalidSpec(FieldError(field=field, message=message))


@contextlib.contextmanager
def admitting(work: Work) -> Iterator[None]:
    """Wraps a submission. If it has more work than is left of the key's quota, it becomes a 429
    that says how much is left, and how to ask for less."""
    try:
        yield
    except WorkExceeded as error:
        raise work_is_used_up(error, work) from error


def work_is_used_up(error: WorkExceeded, work: Work) -> ProblemError:
    """The answer to a request with ``work``."""
    return ProblemError(
        429,
        "The quota of work is used up",
        f"This request has {work.total:,} of work. This key's quota is {error.limit:,}, of "
        f"which {error.left:,.3f} is left now. Wait until one of its jobs ends, cancel one, "
        f"or ask for less. {smaller(work)}",
        {"Retry-After": str(QUOTA_RETRY_AFTER_SECONDS)},
    )


def smaller(work: Work) -> str:
    """A sentence with the largest part of the work, and how to make it smaller."""
    part = work.largest
    return f"{work.share(part):.0%} of it is {part}: {_SMALLER[part][1]}."


def _quota(caller: Caller) -> int | None:
    return caller.quotas.work if caller.quotas else None
