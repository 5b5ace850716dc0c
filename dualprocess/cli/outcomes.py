"""The folder that ``dualprocess batch`` fills: a folder a job, with a record of what it came to.

A record names the spec by its hash, so a job of another spec under the same name is not taken for
it. Whatever was begun here is gone on with here.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ValidationError

from dualprocess.schemas import Artifact, Job, JobSpec, JobStatus

#: Beside the folders.
REPORT = "report.html"
_RECORD = "outcome.json"
_SUBMISSION = ".submission"
_UNFIT = re.compile(r"[^A-Za-z0-9._-]+")


class _Record(BaseModel):
    spec_sha256: str
    job: Job


class _Submission(BaseModel):
    key: str
    specs_sha256: list[str]


@dataclass
class Outcome:
    """One job of a data set: what it shall be, where its files go, and what it came to so far."""

    spec: JobSpec
    folder: Path
    job: Job | None = None

    @property
    def is_done(self) -> bool:
        """It succeeded, and everything that is kept of it is here."""
        succeeded = self.job is not None and self.job.status == JobStatus.SUCCEEDED
        return succeeded and not self.missing()

    @property
    def is_begun(self) -> bool:
        """There is a job for it that may still succeed, or has."""
        ended_badly = (JobStatus.FAILED, JobStatus.CANCELLED)
        return self.job is not None and self.job.status not in ended_badly

    def kept(self) -> list[Artifact]:
        """Those of the job's files that belong here: the LoRA, the pictures, the measures."""
        artifacts = self.job.artifacts if self.job else []
        return [
            artifact
            for artifact in artifacts
            if not artifact.name.startswith(("preview-", "start.", _RECORD))
        ]

    def missing(self) -> list[Artifact]:
        """Those that are not here, or not whole."""
        return [
            artifact
            for artifact in self.kept()
            if not (path := self.folder / artifact.name).is_file()
            or path.stat().st_size != artifact.bytes
        ]

    def record(self, job: Job) -> None:
        """Remembers the job for the next run."""
        self.job = job
        self.folder.mkdir(parents=True, exist_ok=True)
        record = _Record(spec_sha256=_sha256(self.spec), job=job)
        part = self.folder / f".{_RECORD}.part"
        part.write_text(record.model_dump_json(indent=1))
        part.replace(self.folder / _RECORD)


def outcomes(specs: Sequence[JobSpec], out: Path) -> list[Outcome]:
    """What is known of each in ``out``."""
    found = [
        Outcome(spec, out / name) for spec, name in zip(specs, _folder_names(specs), strict=True)
    ]
    for outcome in found:
        try:
            record = _Record.model_validate_json((outcome.folder / _RECORD).read_text())
        except (FileNotFoundError, ValidationError):
            continue
        if record.spec_sha256 == _sha256(outcome.spec):
            outcome.job = record.job
    return found


def submission(asked: Sequence[Outcome], out: Path) -> str:
    """An idempotency key for the request of these. ``interrupted`` knows it until ``submitted``."""
    made = _Submission(key=secrets.token_hex(16), specs_sha256=[_sha256(one.spec) for one in asked])
    out.mkdir(parents=True, exist_ok=True)
    (out / _SUBMISSION).write_text(made.model_dump_json())
    return made.key


def interrupted(found: Sequence[Outcome], out: Path) -> tuple[str, list[Outcome]]:
    """What an earlier run asked for without recording all of it, and its key: the same request
    again makes no second batch. Nothing, where the data set lacks one of its specs now."""
    try:
        made = _Submission.model_validate_json((out / _SUBMISSION).read_text())
    except (FileNotFoundError, ValidationError):
        return "", []
    left: defaultdict[str, list[Outcome]] = defaultdict(list)
    for one in reversed(found):
        left[_sha256(one.spec)].append(one)
    try:
        return made.key, [left[sha256].pop() for sha256 in made.specs_sha256]
    except IndexError:
        return "", []


def submitted(out: Path) -> None:
    """All of what ``submission`` was for is on record."""
    (out / _SUBMISSION).unlink(missing_ok=True)


def _folder_names(specs: Sequence[JobSpec]) -> Iterator[str]:
    """Readable, and different even where upper and lower case are one."""
    taken = {REPORT}
    for spec in specs:
        stem = _UNFIT.sub("-", spec.name or "job").strip("-.")[:100] or "job"
        name, count = stem, 1
        while name.lower() in taken:
            count += 1
            name = f"{stem}-{count}"
        taken.add(name.lower())
        yield name


def _sha256(spec: JobSpec) -> str:
    return hashlib.sha256(spec.model_dump_json(exclude_unset=True).encode()).hexdigest()
