"""Many jobs in one request."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import Field

from dualprocess.schemas.fields import NUMBER, JobId, Model, Name, Seed, Text
from dualprocess.schemas.jobs import ANONYMOUS, JobStatus
from dualprocess.schemas.specs import JobSpec
from dualprocess.schemas.sweeps import Sweep
from dualprocess.schemas.work import WorkUnits

MAX_BATCH_JOBS = 1000


class BatchRequest(Model):
    """Either many specs, or one spec with prompts, a sweep and seeds: one job for each prompt with
    each combination of values and each seed."""

    specs: Annotated[
        list[JobSpec] | None,
        Field(min_length=1, max_length=MAX_BATCH_JOBS, description="One job for each."),
    ] = None
    spec: Annotated[
        JobSpec | None,
        Field(description="Instead of specs: what all jobs share, except prompt and seed."),
    ] = None
    prompts: Annotated[
        list[Text] | None,
        Field(
            min_length=1,
            max_length=MAX_BATCH_JOBS,
            description="Each becomes the `prompt` of jobs.",
        ),
    ] = None
    seeds: Annotated[
        list[Seed] | None,
        Field(
            min_length=1,
            max_length=MAX_BATCH_JOBS,
            description="Each becomes the `optimizer.seed` of jobs.",
        ),
    ] = None
    repeats: Annotated[
        int | None,
        Field(
            ge=1,
            le=MAX_BATCH_JOBS,
            description="Instead of seeds: the number of seeds, counted up from the spec's own.",
        ),
        NUMBER,
    ] = None
    sweep: Annotated[
        Sweep | None,
        Field(
            description="Fields of the spec by their paths, like `optimizer.lr`, each with its "
            "values: each combination becomes a job, with its values in the name."
        ),
    ] = None
    name: Name | None = None


class BatchEntry(Model):
    """A job of a batch, in brief."""

    id: JobId
    name: str | None
    status: JobStatus


class Batch(Model):
    """A batch, as it is now. It exists as long as one of its jobs exists."""

    id: JobId
    name: str | None = None
    owner: Annotated[str, Field(description="Id of the API key that made it.")] = ANONYMOUS
    created_at: datetime
    size: Annotated[int, Field(description="How many jobs were submitted with it.")]
    work: Annotated[
        WorkUnits | None,
        Field(
            description="Of all jobs that were submitted with it; null in batches of versions "
            "that did not count it."
        ),
    ] = None
    counts: Annotated[
        dict[JobStatus, int], Field(description="Jobs by status, without deleted ones.")
    ]
    jobs: Annotated[
        list[BatchEntry],
        Field(description="The jobs that still exist, in the order of the submission."),
    ]
