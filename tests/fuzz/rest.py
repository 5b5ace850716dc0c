"""The API against its own OpenAPI document: schemathesis's engine, with every check it has."""

from __future__ import annotations

import zlib
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

import schemathesis
from schemathesis.engine import events, from_schema
from schemathesis.engine.recorder import ScenarioRecorder

# The engine imports them while it runs: Python 3.11's parser can fail then (gh-106905).
from schemathesis.engine.run import (  # noqa: F401
    analysis,
    auth_bootstrap,
    probes,
    stateful,
    unit,
)
from schemathesis.schemas import BaseSchema

from services.orchestrator.api.app import create_app
from services.orchestrator.api.settings import ApiSettings
from tests.fuzz.world import World

#: Routes that wait for a job's end.
_WAITING = ("/v1/images", "/v1/questions", "/v1/prompts/expand", "/v1/answers")
_ACCEPTED = ("2xx", "3xx", "401", "403", "404", "409", "429", "503")
#: This route may answer 503.
_READINESS = {"not_a_server_error": {"expected-statuses": ["2xx", "4xx", "503"]}}


@dataclass
class Findings:
    """The answers of each operation, how often they came, and what was wrong with them."""

    answers: defaultdict[str, Counter[int]] = field(default_factory=lambda: defaultdict(Counter))
    faults: Counter[str] = field(default_factory=Counter)

    @property
    def requests(self) -> int:
        return sum(counter.total() for counter in self.answers.values())

    def take(self, recorder: ScenarioRecorder) -> None:
        for case_id, interaction in recorder.interactions.items():
            case = recorder.cases[case_id].value
            status = interaction.response.status_code if interaction.response else 0
            self.answers[case.operation.label][status] += 1
        for case_id, checks in recorder.checks.items():
            for check in checks:
                if check.failure_info is not None:
                    self._note(recorder, case_id, check.name, check.failure_info)

    def _note(self, recorder: ScenarioRecorder, case_id: str, check: str, info: Any) -> None:
        label = recorder.cases[case_id].value.operation.label
        failure = info.failure
        self.faults[
            f"{label}: {check}: {failure.title}: {failure.message}\n{info.code_sample}"
        ] += 1


def fuzz(
    world: World,
    *,
    auth: bool,
    examples: int,
    seed: int,
    seconds: int | None = None,
    edges: bool = True,
) -> Findings:
    """The ``edges`` of every constraint, ``examples`` of each operation, then walks over several.

    The same for a seed. With ``seconds`` examples and walks go on until these are over.
    """
    settings = ApiSettings(
        redis_url=world.redis_url,
        artifacts=world.artifacts,
        auth=auth,
        # Wrong keys are tried as well, and each must be answered with 401.
        wrong_keys=10**6,
    )
    schema = schemathesis.openapi.from_asgi(
        "/openapi.json",
        create_app(settings),
        config=schemathesis.Config.from_dict(
            {
                "seed": seed,
                **({} if seconds is None else {"max-time": seconds}),
                "headers": {"Authorization": f"Bearer {world.key}"} if auth else {},
                "generation": {"max-examples": examples, "deterministic": True, "database": "none"},
                "phases": {"coverage": {"enabled": edges}},
                "cache": {"enabled": False},
                # The stream of a queued job does not end.
                "max-stream-events": 1,
                "checks": {
                    # No schema says which presets there are, nor what excludes each other.
                    "positive_data_acceptance": {"expected-statuses": [*_ACCEPTED, "422"]},
                },
                "operations": [
                    {
                        "include-path": "/readyz",
                        # What it is for.
                        "checks": {
                            "not_a_server_error": {"expected-statuses": ["2xx", "4xx", 503]}
                        },
                    }
                ],
            }
        ),
    )
    _know_the_world(schema, world)
    findings = Findings()
    for event in from_schema(schema).execute():
        match event:
            case events.ScenarioFinished():
                findings.take(event.recorder)
            case events.NonFatalError() if not _is_pythons_own(event.value):
                findings.faults[f"{event.label}: {event.info.format()}"] += 1
            case events.FatalError():
                raise event.exception
    return findings


def _is_pythons_own(error: Exception) -> bool:
    """Python 3.11 sometimes raises this when two threads parse code at once (gh-106905). Here that
    happens while examples are made, so it is no answer of the API."""
    return isinstance(error, SystemError) and "AST constructor recursion depth" in str(error)


def _know_the_world(schema: BaseSchema, world: World) -> None:
    """Makes enough of the random requests name existing things, so that they pass the first
    check."""

    @schema.hook
    def map_path_parameters(context: Any, path_parameters: Any) -> Any:
        # The job of the world must not be deleted.
        deletes = context.operation.method == "delete"
        if path_parameters and not deletes and _is_chosen(path_parameters, 2):
            known = {"job_id": world.job.id, "name": world.artifact}
            return {name: known.get(name, value) for name, value in path_parameters.items()}
        return path_parameters

    @schema.hook
    def map_body(context: Any, body: Any) -> Any:
        # There is no worker, so waiting for a job would be useless.
        if not isinstance(body, dict):
            return body
        if context.operation.path in _WAITING and isinstance(body.get("wait", 0), int | float):
            body["wait"] = 0
        return body


def _is_chosen(value: Any, share: int) -> bool:
    """One in ``share``, the same ones in every run."""
    return zlib.crc32(repr(value).encode()) % share == 0
