"""What ended jobs took, for each generator with its teachers."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Sequence

from pydantic import TypeAdapter, ValidationError
from redis.exceptions import RedisError

from dualprocess.schemas import ResolvedJobSpec, WorkPart
from services.orchestrator.pace import Measured, measured, together
from services.orchestrator.store import redis as keys

log = logging.getLogger(__name__)

_KNOWN: TypeAdapter[list[Measured]] = TypeAdapter(list[Measured])


class Paces:
    """A small record for each pair; two jobs that end in the same moment may lose one of both."""

    def __init__(self, redis: keys.Client) -> None:
        self._redis = redis

    async def known(self, generator: str, teachers: Collection[str]) -> list[Measured]:
        """What is known of the pair, the newest size first; nothing if a newer version wrote it in
        a way that this one can't read."""
        text = await self._redis.hget(keys.PACES, keys.pair(generator, teachers))
        try:
            return _KNOWN.validate_json(text or "[]")
        except ValidationError:
            return []

    async def note(
        self, job_id: str, spec: ResolvedJobSpec, *, steps: Sequence[float], seconds: float
    ) -> None:
        """Remembers what a run of a job took; the arguments are those of ``pace.measured``. A job
        goes on without it, so nothing that goes wrong here is raised."""
        try:
            parts = json.loads(await self._redis.hget(keys.job_key(job_id), "parts") or "{}")
            counted = {part: int(parts.get(part, 0)) for part in WorkPart}
            newer = measured(spec, counted, steps, seconds)
            if newer is None:
                return
            pair = [use.name for use in spec.vlm]
            all_known = together(await self.known(spec.generator, pair), newer)
            text = _KNOWN.dump_json(all_known).decode()
            await self._redis.hset(keys.PACES, keys.pair(spec.generator, pair), text)
        except RedisError as error:
            log.warning("job %s: what it took was not noted: %s", job_id, error)
