"""Every exception that ``dualprocess`` raises on purpose. Their messages are safe to print.

::

    DualProcessError
    ├── TensorError           a received tensor has the wrong dtype, shape or size
    ├── ApiError              the service answered with a problem (RFC 9457)
    │   ├── InvalidRequest    400, 413, 415, 421, 422: the request is wrong; never retried
    │   ├── NotFound          404, 410
    │   ├── Conflict          409
    │   ├── Unauthorized      401, 403
    │   ├── RateLimited       429; `retry_after` says when
    │   └── ServiceUnavailable 502, 503, 504; `retry_after` says when, if the service knows
    ├── InvalidSetup          the address, key, proxy or certificate can't be used
    ├── ConnectionFailed      nobody answered at the address
    ├── JobFailed             the awaited job ended as failed
    ├── JobCancelled          the awaited job ended as cancelled
    ├── JobNotReady           the awaited job was not done in time
    ├── TrackingFailed        a job could not be sent to an experiment tracker
    ├── NoLora                the job has no LoRA, or none in the form that was asked for
    └── PushFailed            a LoRA could not be put on a hub
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dualprocess import printable

if TYPE_CHECKING:
    from dualprocess.schemas import Job, Problem


class DualProcessError(Exception):
    """Root of this tree."""


class TensorError(DualProcessError, ValueError):
    """A tensor whose dtype, shape or bytes are wrong. The message may be sent to a client."""


class ApiError(DualProcessError):
    """The service refused a request, and says why in ``problem``."""

    def __init__(self, problem: Problem, *, retry_after: float | None = None) -> None:
        super().__init__(printable.lines(str(problem)))
        self.problem = problem
        self.retry_after = retry_after


class InvalidRequest(ApiError):
    """The request can't succeed as it is: ``problem.errors`` names each field."""


class NotFound(ApiError):
    """There is no such job, artifact or route, or it is not yours."""


class Conflict(ApiError):
    """The resource is in a state that forbids this."""


class Unauthorized(ApiError):
    """The key is missing, unknown or lacks the scope."""


class RateLimited(ApiError):
    """Too many requests, or a quota is used up."""


class ServiceUnavailable(ApiError):
    """The service, or something that it needs, is away for now."""


class InvalidSetup(DualProcessError, ValueError):
    """Nothing can be sent: the arguments, or the environment, have to change."""


class ConnectionFailed(DualProcessError):
    """Nobody answered at the service's address."""


class JobFailed(DualProcessError):
    """A job ended as ``failed``; ``job.error`` says why."""

    def __init__(self, job: Job) -> None:
        super().__init__(printable.lines(f"job {job.id} failed: {job.error}"))
        self.job = job


class JobCancelled(DualProcessError):
    """A job ended as ``cancelled``."""

    def __init__(self, job: Job) -> None:
        super().__init__(printable.lines(f"job {job.id} was cancelled at step {job.step}"))
        self.job = job


class JobNotReady(DualProcessError):
    """A job was not done in time. It goes on: ``client.wait(error.job.id).result`` returns its
    result."""

    def __init__(self, job: Job) -> None:
        waits = f" and waits for {job.waiting_for}" if job.waiting_for else ""
        super().__init__(printable.lines(f"job {job.id} is {job.status}{waits}"))
        self.job = job


class TrackingFailed(DualProcessError):
    """A job can't be tracked, or the tracker refused it."""


class PushFailed(DualProcessError):
    """A LoRA could not be put on a hub. The message says why, and what to do."""


class NoLora(DualProcessError):
    """The job has no LoRA, or none in the form that was asked for. The message says why."""
