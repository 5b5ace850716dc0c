"""The message that a webhook receives."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field

from dualprocess.schemas.fields import Model
from dualprocess.schemas.jobs import Job


class WebhookMessage(Model):
    """A job has ended. The same message may come twice, under the same ``webhook-id``."""

    type: Literal["job.succeeded", "job.failed", "job.cancelled"]
    timestamp: Annotated[datetime, Field(description="When the job ended.")]
    data: Annotated[Job, Field(description="The job, without its webhook.")]
