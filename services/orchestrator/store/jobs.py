"""Converts jobs between their stored form, a hash each, and ``schemas.Job``."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import BaseModel, TypeAdapter

from dualprocess.schemas import (
    ANONYMOUS,
    Answers,
    Artifact,
    BaseScore,
    ExpandedPrompt,
    Job,
    JobKind,
    JobPage,
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
from services.orchestrator.store.newer import KnownParts, UnreadableJob
from services.orchestrator.store.origins import Origin, origin_of
from services.orchestrator.work import THOUSANDTHS, Work

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
    spec: ResolvedJobSpec,
    work: Work,
    webhook: Webhook | None = None,
    warnings: Sequence[str] = (),
) -> dict[str, str]:
    """What is stored of an optimise job when it is submitted."""
    fields = {
        "kind": JobKind.OPTIMIZE,
        "generator": spec.generator,
        "vlms": ",".join(needed_vlms(spec)),
        "name": spec.name or "",
        "metadata": _METADATA.dump_json(spec.metadata).decode(),
        "steps": str(spec.optimizer.steps),
        "work": str(work.thousandths),
        "parts": json.dumps(dict(work.parts)),
        "spec": spec.model_dump_json(),
    }
    if spec.deadline is not None:
        fields["deadline"] = f"{spec.deadline:g}"
    if webhook is not None:
        fields |= {"webhook_url": webhook.url, "webhook_secret": webhook.secret or ""}
    return fields | _told(warnings)


def images_fields(
    spec: ResolvedImagesSpec, work: Work, warnings: Sequence[str] = ()
) -> dict[str, str]:
    """What is stored of an images job when it is submitted."""
    return {
        "kind": JobKind.IMAGES,
        "generator": spec.generator,
        "vlms": ",".join(needed_vlms(spec)),
        "work": str(work.thousandths),
        "spec": spec.model_dump_json(),
    } | _told(warnings)


def words_fields(
    spec: ResolvedAnswersSpec | ResolvedQuestionsSpec | ResolvedExpansionSpec, work: Work
) -> dict[str, str]:
    """What is stored of a job of questions, answers or expansion when it is submitted."""
    kind = next(kind for kind, model in _SPECS.items() if isinstance(spec, model))
    return {
        "kind": kind,
        "generator": "",
        "vlms": spec.vlm,
        "work": str(work.thousandths),
        "spec": spec.model_dump_json(),
    }


def _told(warnings: Sequence[str]) -> dict[str, str]:
    return {"warnings": json.dumps(list(warnings))} if warnings else {}


#: Specs with more characters than this, drawings included, are parsed outside of the event loop.
_MUCH = 1 << 15


class Jobs:
    """Reads jobs. Only ``Queue`` writes them."""

    def __init__(self, redis: keys.Client) -> None:
        self._redis = redis

    async def read(self, job_id: str, *, whole: bool = False) -> Job | None:
        """The job, as it is now.

        Fields of a newer version that this one doesn't know are left out, and its warnings say so.
        Raises ``UnreadableJob`` if too little is left; with ``whole``, also if any part of its spec
        is left out.
        """
        for stored in await self._stored([job_id]):
            if len(stored.fields["spec"]) > _MUCH:
                return await asyncio.to_thread(stored.job, whole=whole)
            return stored.job(whole=whole)
        return None

    async def page(
        self,
        *,
        cursor: str | None,
        limit: int,
        status: JobStatus | None,
        owner: str | None = None,
        batch: str | None = None,
    ) -> JobPage:
        """Newest first, those before ``cursor``.

        Those of ``batch``, else of ``owner``, else of everyone; with ``status``, or with any. A job
        whose status changed meanwhile is left out, so a page before the last can have fewer jobs
        than ``limit``.
        """
        index = keys.jobs_key(owner=owner, batch=batch, status=status)
        upper = f"({cursor}" if cursor else "+"
        ids = await self._redis.zrevrangebylex(index, upper, "-", 0, limit + 1)
        stored = await self._stored(ids[:limit])
        is_much = sum(len(one.fields["spec"]) for one in stored) > _MUCH
        jobs, unreadable = await asyncio.to_thread(_known, stored) if is_much else _known(stored)
        return JobPage(
            jobs=[job for job in jobs if status in (None, job.status)],
            unreadable=unreadable,
            next=ids[limit - 1] if len(ids) > limit else None,
        )

    async def _stored(self, ids: Sequence[str]) -> list[_Stored]:
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
            _Stored(fields, artifacts, causes, positions.get(fields["id"]))
            for fields, artifacts, causes in found
        ]

    async def origin(self, job_id: str) -> Origin:
        """The request that made it."""
        return await origin_of(job_id, self._redis)

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

    async def unfinished_work(self, owner: str) -> float:
        """The work of the owner's jobs that have not ended."""
        async with self._redis.pipeline(transaction=True) as pipe:
            for status in (JobStatus.QUEUED, JobStatus.RUNNING):
                pipe.zrange(keys.jobs_key(owner=owner, status=status), 0, -1)
            queued, running = await pipe.execute()
        async with self._redis.pipeline(transaction=False) as pipe:
            for job_id in queued + running:
                pipe.hget(keys.job_key(job_id), "work")
            return sum(int(work or 0) for work in await pipe.execute()) / THOUSANDTHS


@dataclass(frozen=True)
class _Stored:
    """A job as it is stored in Redis; ``position`` is its place in the queue."""

    fields: dict[str, str]
    artifacts: list[str]
    causes: list[str]
    position: int | None

    def job(self, *, whole: bool = False) -> Job:
        """The parsed job. Raises ``UnreadableJob``."""
        known = KnownParts()
        try:
            job = _job(self.fields, self.artifacts, self.causes, self.position, known)
        except (KeyError, ValueError) as error:
            raise UnreadableJob(self.fields["id"], _owner(self.fields)) from error
        if whole and (of_spec := [name for name in known.left_out if name.startswith("spec.")]):
            raise UnreadableJob(job.id, job.owner, of_spec)
        return job


def _known(stored: Sequence[_Stored]) -> tuple[list[Job], list[str]]:
    """The jobs that this version can read, and the ids of the others."""
    jobs, unreadable = [], []
    for one in stored:
        try:
            jobs.append(one.job())
        except UnreadableJob as error:
            unreadable.append(error.job_id)
    return jobs, unreadable


def _owner(fields: Mapping[str, str]) -> str:
    return fields.get("key", ANONYMOUS)


def _job(
    fields: dict[str, str],
    artifacts: list[str],
    causes: list[str],
    position: int | None,
    known: KnownParts,
) -> Job:
    kind = JobKind(fields["kind"])
    described = [known.read(Artifact, entry.partition(" ")[2], "artifacts") for entry in artifacts]
    optional: dict[str, Any] = {}
    status = JobStatus(fields["status"])
    if not status.is_final and (checkpoints := load(fields.get("checkpoints"))):
        optional["checkpoint"] = checkpoints[0].step
    if loss := fields.get("loss"):
        optional["loss"] = float(loss)
    if probability := fields.get("probability"):
        optional["probability"] = known.read(Probability, probability, "probability")
    if scores := fields.get("scores"):
        optional["scores"] = known.read(Scores, scores, "scores")
    if base := fields.get("base"):
        optional["base"] = known.read(BaseScore, base, "base")
    spec = known.read(_SPECS[kind], fields["spec"], "spec")
    # The warnings given while it ran, then those about the scores.
    said = [fields[name] for name in ("warnings", "advice") if name in fields]
    warnings = list(dict.fromkeys(text for one in said for text in json.loads(one)))
    if known.left_out:
        warnings.append(
            "A newer version of the service stored this job. This version does not know these "
            f"fields, and leaves them out: {', '.join(known.left_out)}. Upgrade the service to see "
            "them."
        )
    optional["warnings"] = warnings
    if result := fields.get("result"):
        optional["result"] = known.read(_RESULTS[kind], result, "result")
    if metadata := fields.get("metadata"):
        optional["metadata"] = _METADATA.validate_json(metadata)
    if url := fields.get("webhook_url"):
        optional["webhook"] = WebhookState(
            url=url,
            status=WebhookStatus(fields.get("webhook_status", WebhookStatus.WAITING)),
            attempts=int(fields.get("webhook_attempts", 0)),
            error=fields.get("webhook_error"),
        )
    if work := fields.get("work"):
        optional["work"] = int(work) / THOUSANDTHS
    created_at = _moment(fields["created_at"])
    if deadline := fields.get("deadline"):
        optional["deadline_at"] = created_at + timedelta(seconds=float(deadline))
    return Job(
        id=fields["id"],
        kind=kind,
        status=status,
        name=fields.get("name") or None,
        owner=_owner(fields),
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
        spec=spec,
        **optional,
    )


def _moment(microseconds: str) -> datetime:
    return datetime.fromtimestamp(int(microseconds) / 1e6, UTC)
