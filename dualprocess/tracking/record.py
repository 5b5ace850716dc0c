"""What is sent to a tracker about a job, whichever tracker it is."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dualprocess import printable
from dualprocess.client import Client
from dualprocess.errors import TrackingFailed
from dualprocess.schemas import Job, ResolvedJobSpec

#: Trackers limit how long a parameter may be; `job.json` has all of it.
_CHARACTERS = 500


@dataclass(frozen=True)
class Record:
    """``steps`` are the measurements of each step, ``scores`` those at the end, ``files`` the job's
    files."""

    job_id: str
    name: str
    parameters: Mapping[str, str]
    steps: Sequence[tuple[int, Mapping[str, float]]]
    scores: Mapping[str, float]
    files: Sequence[Path]


def read(client: Client, job_id: str, folder: Path) -> Record:
    """The record of an ended job; its files are downloaded into ``folder``.

    Raises ``TrackingFailed`` for a job that has no curve or has not ended.
    """
    job = client.job(job_id)
    if not isinstance(job.spec, ResolvedJobSpec):
        raise TrackingFailed(f"job {job.id} trains no LoRA; only training jobs can be tracked")
    if not job.status.is_final:
        raise TrackingFailed(f"job {job.id} is {job.status}; `dualprocess watch` waits for its end")
    names = [artifact.name for artifact in job.artifacts]
    files = [client.download(job.id, name, folder / name) for name in names]
    metrics = folder / "metrics.jsonl"
    lines = metrics.read_text(encoding="utf-8").splitlines() if metrics in files else []
    return Record(
        job_id=job.id,
        name=printable.line(job.name or job.id),
        parameters=dict(_parameters(job.spec)),
        # A skipped step has a reason instead of measurements.
        steps=[_measures(step) for step in map(json.loads, lines) if "loss" in step],
        scores=dict(_scores(job)),
        files=files,
    )


def _parameters(spec: ResolvedJobSpec) -> Iterator[tuple[str, str]]:
    for number, question in enumerate(spec.questions, 1):
        yield f"question_{number}", printable.lines(question.question)[:_CHARACTERS]
        yield f"answer_{number}", printable.lines(question.answer)[:_CHARACTERS]
    for name, value in _flat(spec.model_dump(mode="json", exclude={"questions", "name"})):
        yield name, printable.lines(str(value))[:_CHARACTERS]


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        elif value is not None:
            yield f"{prefix}{name}", value


def _measures(step: Mapping[str, Any]) -> tuple[int, Mapping[str, float]]:
    measures = {
        "loss": step["loss"],
        "grad_norm": step["grad_norm"],
        "probability": step["probability"]["geometric_mean"],
    }
    measures |= {name: step[name] for name in ("drift", "diversity") if step.get(name) is not None}
    for number, question in enumerate(step["questions"], 1):
        measures[f"probability_{number}"] = question["probability"]["geometric_mean"]
    return step["step"], measures


def _scores(job: Job) -> Iterator[tuple[str, float]]:
    judge = job.scores.judge
    found = {"base": job.scores.base, "lora": job.scores.lora}
    if judge is not None:
        found |= {"judge_base": judge.base, "judge_lora": judge.lora}
    for name, score in found.items():
        if score is not None:
            yield f"score_{name}", score.probability.geometric_mean
    if judge is not None and judge.gap is not None:
        yield "judge_gap", judge.gap
    for name in ("drift", "diversity"):
        value = getattr(job.scores, name)
        if value is not None:
            yield f"score_{name}", value
