"""Converts jobs between their stored form, a hash each, and ``schemas.Job``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import BaseModel, TypeAdapter

from dualprocess.schemas import (
    ANONYMOUS,
    Answers,
    Artifact,
    ExpandedPrompt,
    Job,
    JobKind,
    JobStatus,
    Probability,
    ResolvedAnswersSpec,
    ResolvedExpansionSpec,
    ResolvedImagesSpec,
    ResolvedJobSpec,
    ResolvedQuestionsSpec,
    ResolvedSpec,
    Scores,
    Webhook,
    WebhookState,
    WebhookStatus,
    WrittenQuestions,
)
from services.orchestrator.store import redis as keys
from services.orchestrator.store.checkpoints import StoredCheckpoint, load

_METADATA: TypeAdapter[dict[str, str]] = TypeAdapter(dict[str, str])

_SPECS: Mapping[JobKind, type[ResolvedSpec]] = {
    JobKind.OPTIMIZE: ResolvedJobSpec,
    JobKind.IMAGES: ResolvedImagesSpec,
    JobKind.ANSWERS: ResolvedAnswersSpec,
    JobKind.QUESTIONS: ResolvedQuestionsSpec,
    JobKind.EXPANSION: ResolvedExpansionSpec,
}
_RESULTS: Mapping[JobKind, type[BaseModel]] = {
    JobKind.ANSWERS: Answers,
    JobKind.QUESTIONS: WrittenQuestions,
    JobKind.EXPANSION: ExpandedPrompt,
}


def needed_vlms(spec: ResolvedJobSpec | ResolvedImagesSpec) -> list[str]:
    """The VLMs that a worker must reach to run the job: teachers, then the judge."""
    if isinstance(spec, ResolvedImagesSpec):
        return [spec.vlm] if spec.vlm else []
    return list(dict.fromkeys([use.name for use in spec.vlm] + [spec.judge or spec.vlm[0].name]))


def optimize_fields(
    spec: ResolvedJobSpec, webhook: Webhook | None = None, warnings: Sequence[str] = ()
) -> dict[str, str]:
    """What is stored of an optimise job when it is submitted."""
    fields = {
        "kind": JobKind.OPTIMIZE,
        "generator": spec.generator,
        "vlms": ",".join(needed_vlms(spec)),
        "name": spec.name or "",
        "metadata": _METADATA.dump_json(spec.metadata).decode(),
        "steps": str(spec.optimizer.steps),
        "spec": spec.model_dump_json(),
    }
    if spec.deadline is not None:
        fields["deadline"] = f"{spec.deadline:g}"
    if webhook is not None:
        fields |= {"webhook_url": webhook.url, "webhook_secret": webhook.secret or ""}
    return fields | _told(warnings)


def images_fields(spec: ResolvedImagesSpec, warnings: Sequence[str] = ()) -> dict[str, str]:
    """What is stored of an images job when it is submitted."""
    return {
        "kind": JobKind.IMAGES,
        "generator": spec.generator,
        "vlms": ",".join(needed_vlms(spec)),
        "spec": spec.model_dump_json(),
    } | _told(warnings)


def words_fields(
    spec: ResolvedAnswersSpec | ResolvedQuestionsSpec | ResolvedExpansionSpec,
) -> dict[str, str]:
    """What is stored of a job of questions, answers or expansion when it is submitted."""
    kind = next(kind for kind, model in _SPECS.items() if isinstance(spec, model))
    return {"kind": kind, "generator": "", "vlms": spec.vlm, "spec": spec.model_dump_json()}


def _told(warnings: Sequence[str]) -> dict[str, str]:
    return {"warnings": json.dumps(list(warnings))} if warnings else {}


class Jobs:
    """Reads jobs. Only ``Queue`` writes them."""

    def __init__(self, redis: keys.Client) -> None:
        self._redis = redis

    async def read(self, job_id: str) -> Job | None:
        """The job, as it is now."""
        return next(iter(await self._read([job_id])), None)

    async def page(
        self,
        *,
        cursor: str | None,
        limit: int,
        status: JobStatus | None,
        owner: str | None = None,
        batch: str | None = None,
    ) -> tuple[list[Job], str | None]:
        """Newest first, those before ``cursor``; and the next page's cursor.

        Those of ``batch``, else of ``owner``, else everyone's; in ``status``, or in any. A job that
        changed its status meanwhile is left out, so that a page before the last can have fewer than
        ``limit``.
        """
        index = keys.jobs_key(owner=owner, batch=batch, status=status)
        upper = f"({cursor}" if cursor else "+"
        ids = await self._redis.zrevrangebylex(index, upper, "-", 0, limit + 1)
        jobs = [job for job in await self._read(ids[:limit]) if status in (None, job.status)]
        return jobs, ids[limit - 1] if len(ids) > limit else None

    async def _read(self, ids: Sequence[str]) -> list[Job]:
        """Those of these jobs that exist, in two round trips."""
        async with self._redis.pipeline(transaction=True) as pipe:
            for job_id in ids:
                pipe.hgetall(keys.job_key(job_id))
                pipe.hvals(keys.artifacts_key(job_id))
                pipe.lrange(keys.causes_key(job_id), 0, -1)
            answers = iter(await pipe.execute())
        found = [stored for stored in zip(answers, answers, answers, strict=True) if stored[0]]
        queued = [fields for fields, *_ in found if fields["status"] == JobStatus.QUEUED]
        async with self._redis.pipeline(transaction=False) as pipe:
            for fields in queued:
                pipe.zrank(fields["queue"], fields["id"])
            ranks = await pipe.execute()
        positions = {fields["id"]: rank for fields, rank in zip(queued, ranks, strict=True)}
        return [
            _job(fields, artifacts, causes, positions.get(fields["id"]))
            for fields, artifacts, causes in found
        ]

    async def artifact_path(self, job_id: str, name: str) -> tuple[Artifact, str] | None:
        """An artifact and where it is stored."""
        entry = await self._redis.hget(keys.artifacts_key(job_id), name)
        if entry is None:
            return None
        path, _, described = entry.partition(" ")
        return Artifact.model_validate_json(described), path

    async def checkpoints(self, job_id: str) -> list[StoredCheckpoint]:
        """The checkpoints of a job, newest first."""
        return load(await self._redis.hget(keys.job_key(job_id), "checkpoints"))

    async def queue_depths(self) -> dict[str, int]:
        """How many jobs wait, by ``generator|vlm+vlm``."""
        queues = sorted(await self._redis.smembers(keys.QUEUES))
        prefix = keys.queue_key("", ()).removesuffix("|")
        return {queue.removeprefix(prefix): await self._redis.zcard(queue) for queue in queues}

    async def by_status(self) -> dict[JobStatus, int]:
        """How many jobs there are."""
        async with self._redis.pipeline(transaction=True) as pipe:
            for status in JobStatus:
                pipe.zcard(keys.jobs_key(status=status))
            return dict(zip(JobStatus, await pipe.execute(), strict=True))

    async def running(self) -> int:
        """How many jobs are under a lease."""
        return int(await self._redis.zcard(keys.LEASES))


def _job(
    fields: dict[str, str], artifacts: list[str], causes: list[str], position: int | None
) -> Job:
    kind = JobKind(fields["kind"])
    described = [Artifact.model_validate_json(entry.partition(" ")[2]) for entry in artifacts]
    optional: dict[str, Any] = {}
    status = JobStatus(fields["status"])
    if not status.is_final and (checkpoints := load(fields.get("checkpoints"))):
        optional["checkpoint"] = checkpoints[0].step
    if loss := fields.get("loss"):
        optional["loss"] = float(loss)
    if probability := fields.get("probability"):
        optional["probability"] = Probability.model_validate_json(probability)
    if scores := fields.get("scores"):
        optional["scores"] = Scores.model_validate_json(scores)
    # The warnings given while it ran, then those about the scores.
    said = [fields[name] for name in ("warnings", "advice") if name in fields]
    optional["warnings"] = list(dict.fromkeys(text for one in said for text in json.loads(one)))
    if result := fields.get("result"):
        optional["result"] = _RESULTS[kind].model_validate_json(result)
    if metadata := fields.get("metadata"):
        optional["metadata"] = _METADATA.validate_json(metadata)
    if url := fields.get("webhook_url"):
        optional["webhook"] = WebhookState(
            url=url,
            status=WebhookStatus(fields.get("webhook_status", WebhookStatus.WAITING)),
            attempts=int(fields.get("webhook_attempts", 0)),
            error=fields.get("webhook_error"),
        )
    created_at = _moment(fields["created_at"])
    if deadline := fields.get("deadline"):
        optional["deadline_at"] = created_at + timedelta(seconds=float(deadline))
    return Job(
        id=fields["id"],
        kind=kind,
        status=status,
        name=fields.get("name") or None,
        owner=fields.get("key", ANONYMOUS),
        batch=fields.get("batch"),
        generator=fields["generator"],
        vlms=[vlm for vlm in fields["vlms"].split(",") if vlm],
        created_at=created_at,
        started_at=_moment(fields["started_at"]) if "started_at" in fields else None,
        finished_at=_moment(fields["finished_at"]) if "finished_at" in fields else None,
        position=position,
        attempt=int(fields["attempt"]),
        waiting_for=fields.get("waiting_for"),
        step=int(fields.get("step", 0)),
        steps=int(fields.get("steps", 0)),
        skipped=int(fields.get("skipped", 0)),
        error=fields.get("error"),
        stopped_because=fields.get("stopped_because"),
        causes=causes,
        artifacts=sorted(described, key=lambda artifact: artifact.name),
        spec=_SPECS[kind].model_validate_json(fields["spec"]),
        **optional,
    )


def _moment(microseconds: str) -> datetime:
    return datetime.fromtimestamp(int(microseconds) / 1e6, UTC)
