"""Expands a batch's request into the complete spec of each job, or reports everything that is
wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pydantic import ValidationError

from dualprocess.schemas import BatchRequest, FieldError, JobSpec, ResolvedJobSpec, Webhook, sweeps
from dualprocess.schemas.batches import MAX_BATCH_JOBS
from dualprocess.schemas.faults import MAX_FAULTS, field_errors
from services.orchestrator.api.auth import Caller
from services.orchestrator.api.problems import InvalidSpec
from services.orchestrator.api.quotas import (
    check_batch,
    check_batch_work,
    check_steps,
    check_work,
)
from services.orchestrator.api.reading import warnings
from services.orchestrator.api.resolve import resolve_job
from services.orchestrator.api.starts import check_start
from services.orchestrator.api.state import State
from services.orchestrator.api.webhooks import complete_webhook
from services.orchestrator.work import Work, job_work, together

#: How many characters of a prompt go into a job's name.
_NAME_CHARACTERS = 80
#: The same beside the values of a sweep.
_SWEPT_NAME_CHARACTERS = 40


@dataclass
class Ready:
    """A spec that can be queued, with the warnings for its owner."""

    spec: ResolvedJobSpec
    work: Work
    webhook: Webhook | None
    warnings: Sequence[str] = ()


async def expand(request: BatchRequest, state: State, caller: Caller) -> list[Ready]:
    """A spec for each job. Raises ``InvalidSpec``, which lists everything that is wrong, with its
    place."""
    _check_form(request)
    asked = await asyncio.to_thread(lambda: list(_places(request)))
    faults: list[FieldError] = []
    ready = []
    checks = _Checks(state, caller)
    for place, spec, swept in asked:
        try:
            # Drawings are decoded here, so it runs outside of the event loop.
            resolved = await asyncio.to_thread(resolve_job, spec, state.presets)
            ready.append(await checks.passed(spec, resolved))
        except InvalidSpec as error:
            faults += [
                FieldError(field=f"{place}.{fault.field}", message=f"{fault.message}{swept}")
                for fault in error.errors
            ]
    if faults:
        raise InvalidSpec(*faults)
    jobs = ready if request.specs else list(_spread(ready, request))
    field = "specs" if request.specs else "sweep" if request.sweep else "prompts"
    check_batch(caller, len(jobs), field)
    check_batch_work(caller, together(job.work for job in jobs), field)
    return await asyncio.to_thread(_warned, jobs, state)


def _warned(jobs: list[Ready], state: State) -> list[Ready]:
    """Specs that differ only in the seed have the same warnings."""
    known: dict[tuple[str, ...], list[str]] = {}
    for job in jobs:
        spec = job.spec
        asked = (spec.generator, spec.image.negative_prompt, *spec.prompts)
        if asked not in known:
            preset = state.presets.generator(spec.generator)
            known[asked] = warnings(preset, spec.prompts, spec.image)
        job.warnings = [*job.warnings, *known[asked]]
    return jobs


def _check_form(request: BatchRequest) -> None:
    if (request.specs is None) == (request.spec is None):
        fault = "spec", "is missing; write either specs, or spec with prompts and seeds"
        if request.spec:
            fault = "specs", "can't be used together with spec; leave one of them out"
        raise InvalidSpec(FieldError(field=fault[0], message=fault[1]))
    faults = [
        FieldError(field=field, message="is for spec only; with specs write it into each of them")
        for field in ("prompts", "seeds", "repeats", "sweep")
        if request.specs and getattr(request, field) is not None
    ]
    if request.seeds is not None and request.repeats is not None:
        message = "can't be used together with seeds; leave one of them out"
        faults.append(FieldError(field="repeats", message=message))
    if request.spec and request.prompts and (request.spec.prompt or request.spec.prompts):
        message = "can't be used together with the spec's own prompt; leave one of them out"
        faults.append(FieldError(field="prompts", message=message))
    seeds = len(request.seeds) if request.seeds else request.repeats or 1
    swept = sweeps.count(request.sweep or {})
    if (jobs := len(request.prompts or [""]) * seeds * swept) > MAX_BATCH_JOBS:
        field, beside = ("sweep", "prompts and seeds") if request.sweep else ("prompts", "seeds")
        message = f"make {jobs:,} jobs with these {beside}; ask for at most {MAX_BATCH_JOBS:,}"
        faults.append(FieldError(field=field, message=message))
    if faults:
        raise InvalidSpec(*faults)


def _places(request: BatchRequest) -> Iterator[tuple[str, JobSpec, str]]:
    """Each spec to check, with its place in the request, and what to add to its faults. Raises
    ``InvalidSpec`` for a value that no spec can have."""
    for index, spec in enumerate(request.specs or []):
        yield f"specs.{index}", spec, ""
    if request.spec:
        prompt = request.prompts[0] if request.prompts else request.spec.prompt
        spec = request.spec.model_copy(update={"prompt": prompt})
        for point in sweeps.points(request.sweep or {}):
            told = f" (with {sweeps.described(point)})" if point else ""
            yield "spec", _swept(spec, point), told


def _swept(spec: JobSpec, point: sweeps.Point) -> JobSpec:
    """The spec with these values. Raises ``InvalidSpec``."""
    if not point:
        return spec
    fields = spec.model_dump(exclude_unset=True)
    try:
        sweeps.put(fields, point)
        return JobSpec.model_validate(fields)
    except sweeps.NoSuchPlace as error:
        field, _, message = str(error).partition(": ")
        raise InvalidSpec(FieldError(field=field, message=message)) from error
    except ValidationError as error:
        found = field_errors(error.errors(include_url=False, include_input=False)[:MAX_FAULTS])
        faults = [
            FieldError(field=_swept_field(one.field, point), message=one.message) for one in found
        ]
        raise InvalidSpec(*faults) from error


def _swept_field(field: str, point: sweeps.Point) -> str:
    """Where the value was written."""
    return next((f"sweep.{path}" for path in point if field.startswith(path)), f"spec.{field}")


def _spread(ready: Sequence[Ready], request: BatchRequest) -> Iterator[Ready]:
    """The spec with each prompt, each combination of a sweep, and each seed."""
    points = list(sweeps.points(request.sweep or {}))
    prompts: Sequence[str | None] = request.prompts or [None]
    for prompt in prompts:
        for point, one in zip(points, ready, strict=True):
            yield from _repeated(one, request, prompt, sweeps.described(point))


def _repeated(
    ready: Ready, request: BatchRequest, prompt: str | None, swept: str
) -> Iterator[Ready]:
    """A spec with a prompt and each seed."""
    spec = ready.spec
    first = spec.optimizer.seed
    seeds = request.seeds or [(first + more) % 2**32 for more in range(request.repeats or 1)]
    prompts = [prompt] if prompt is not None else spec.prompts
    for seed in seeds:
        parts = [spec.name] if spec.name else []
        parts += [prompts[0]] if request.prompts else []
        most = _SWEPT_NAME_CHARACTERS if swept else _NAME_CHARACTERS
        parts = [part[:most] for part in parts]
        parts += [swept] if swept else []
        parts += [f"seed {seed}"] if len(seeds) > 1 else []
        changes = {
            "prompts": prompts,
            "optimizer": spec.optimizer.model_copy(update={"seed": seed}),
            "name": ", ".join(parts) or None,
        }
        # The work does not depend on which prompt or seed it is.
        yield Ready(spec.model_copy(update=changes), ready.work, ready.webhook)


class _Checks:
    """Checks that need Redis or the network; done once for all specs that need the same check."""

    def __init__(self, state: State, caller: Caller) -> None:
        self._state = state
        self._caller = caller
        self._webhooks: dict[str, asyncio.Future[Webhook | None]] = {}
        self._starts: set[str] = set()

    async def passed(self, spec: JobSpec, resolved: ResolvedJobSpec) -> Ready:
        """Raises ``InvalidSpec``."""
        check_steps(self._caller, resolved.optimizer.steps)
        work = job_work(resolved, self._state.presets.generator(resolved.generator))
        check_work(self._caller, work, self._state.max_job_work)
        start = resolved.lora.start
        if start is not None and start.file is not None:
            message = (
                "can't be sent with a batch; submit one job with it, then name that job in "
                "lora.start.job"
            )
            raise InvalidSpec(FieldError(field="lora.start.file", message=message))
        lora = f"{resolved.generator} {resolved.lora.model_dump_json()}"
        if lora not in self._starts:
            await check_start(resolved, self._state, self._caller)
            self._starts.add(lora)
        return Ready(resolved, work, await self._webhook(spec.webhook))

    async def _webhook(self, webhook: Webhook | None) -> Webhook | None:
        asked = webhook.model_dump_json() if webhook else ""
        if asked not in self._webhooks:
            self._webhooks[asked] = asyncio.ensure_future(
                complete_webhook(webhook, self._state.addresses, self._state.webhook_secret)
            )
        return await self._webhooks[asked]
