"""Jobs as they are stored: a hash each ⇄ ``schemas.Job``."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

from pydantic import TypeAdapter

from dualprocess.schemas import (
    Artifact,
    Job,
    JobKind,
    JobStatus,
    Probability,
    ResolvedImagesSpec,
    ResolvedJobSpec,
    Scores,
)
from services.orchestrator.store import redis as keys

_METADATA: TypeAdapter[dict[str, str]] = TypeAdapter(dict[str, str])


def needed_vlms(spec: ResolvedJobSpec | ResolvedImagesSpec) -> list[str]:
    """Those a worker must reach to run the job: teachers, then the judge."""
    if isinstance(spec, ResolvedImagesSpec):
        return [spec.vlm] if spec.vlm else []
    return list(dict.fromkeys([use.name for use in spec.vlm] + [spec.judge or spec.vlm[0].name]))


def optimize_fields(spec: ResolvedJobSpec) -> dict[str, str]:
    """What is stored of an optimise job when it is submitted."""
    return {
        "kind": JobKind.OPTIMIZE,
        "generator": spec.generator,
        "vlms": ",".join(needed_vlms(spec)),
        "name": spec.name or "",
        "metadata": _METADATA.dump_json(spec.metadata).decode(),
        "steps": str(spec.optimizer.steps),
        "spec": spec.model_dump_json(),
    }


def images_fields(spec: ResolvedImagesSpec) -> dict[str, str]:
    """What is stored of an images job when it is submitted."""
    return {
        "kind": JobKind.IMAGES,
        "generator": spec.generator,
        "vlms": ",".join(needed_vlms(spec)),
        "spec": spec.model_dump_json(),
    }


class Jobs:
    """Reads jobs. Only ``Queue`` writes them."""

    def __init__(self, redis: keys.Client) -> None:
        self._redis = redis

    async def read(self, job_id: str) -> Job | None:
        """The job, as it is now."""
        async with self._redis.pipeline() as pipe:
            pipe.hgetall(keys.job_key(job_id))
            pipe.hvals(keys.artifacts_key(job_id))
            pipe.lrange(keys.causes_key(job_id), 0, -1)
            fields, artifacts, causes = await pipe.execute()
        if not fields:
            return None
        position = None
        if fields["status"] == JobStatus.QUEUED:
            position = await self._redis.zrank(fields["queue"], job_id)
        return _job(fields, artifacts, causes, position)

    async def page(
        self, *, cursor: str | None, limit: int, status: JobStatus | None
    ) -> tuple[list[Job], str | None]:
        """Newest first, those before ``cursor``; and the next page's cursor."""
        found: list[Job] = []
        async for job in self._newest(cursor):
            if status is not None and job.status != status:
                continue
            if len(found) == limit:
                return found, found[-1].id
            found.append(job)
        return found, None

    async def _newest(self, cursor: str | None) -> AsyncIterator[Job]:
        upper = f"({cursor}" if cursor else "+"
        while ids := await self._redis.zrevrangebylex(keys.JOBS, upper, "-", 0, 50):
            for job_id in ids:
                if job := await self.read(job_id):
                    yield job
            upper = f"({ids[-1]}"

    async def artifact_path(self, job_id: str, name: str) -> tuple[Artifact, str] | None:
        """An artifact and where it is stored."""
        entry = await self._redis.hget(keys.artifacts_key(job_id), name)
        if entry is None:
            return None
        path, _, described = entry.partition(" ")
        return Artifact.model_validate_json(described), path

    async def queue_depths(self) -> dict[str, int]:
        """How many jobs wait, by ``generator|vlm+vlm``."""
        queues = sorted(await self._redis.smembers(keys.QUEUES))
        prefix = keys.queue_key("", ()).removesuffix("|")
        return {queue.removeprefix(prefix): await self._redis.zcard(queue) for queue in queues}

    async def running(self) -> int:
        """How many jobs are under a lease."""
        return int(await self._redis.zcard(keys.LEASES))


def _job(
    fields: dict[str, str], artifacts: list[str], causes: list[str], position: int | None
) -> Job:
    spec_model: type[ResolvedJobSpec | ResolvedImagesSpec] = (
        ResolvedJobSpec if fields["kind"] == JobKind.OPTIMIZE else ResolvedImagesSpec
    )
    described = [Artifact.model_validate_json(entry.partition(" ")[2]) for entry in artifacts]
    optional: dict[str, Any] = {}
    if loss := fields.get("loss"):
        optional["loss"] = float(loss)
    if probability := fields.get("probability"):
        optional["probability"] = Probability.model_validate_json(probability)
    if scores := fields.get("scores"):
        optional["scores"] = Scores.model_validate_json(scores)
    if metadata := fields.get("metadata"):
        optional["metadata"] = _METADATA.validate_json(metadata)
    return Job(
        id=fields["id"],
        kind=JobKind(fields["kind"]),
        status=JobStatus(fields["status"]),
        name=fields.get("name") or None,
        generator=fields["generator"],
        vlms=[vlm for vlm in fields["vlms"].split(",") if vlm],
        created_at=_moment(fields["created_at"]),
        started_at=_moment(fields["started_at"]) if "started_at" in fields else None,
        finished_at=_moment(fields["finished_at"]) if "finished_at" in fields else None,
        position=position,
        attempt=int(fields["attempt"]),
        waiting_for=fields.get("waiting_for"),
        step=int(fields.get("step", 0)),
        steps=int(fields.get("steps", 0)),
        error=fields.get("error"),
        causes=causes,
        artifacts=sorted(described, key=lambda artifact: artifact.name),
        spec=spec_model.model_validate_json(fields["spec"]),
        **optional,
    )


def _moment(microseconds: str) -> datetime:
    return datetime.fromtimestamp(int(microseconds) / 1e6, UTC)
