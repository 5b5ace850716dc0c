"""The folder that ``dualprocess batch`` fills: a folder a job, with a record of what it came to.

A record names the spec by its hash, so a job of another spec under the same name is not taken for
it. Whatever was begun here is gone on with here.
"""

from __future__ import annotations

import hashlib
import re
import secrets
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


def submission_key(asked: Sequence[Outcome], out: Path) -> str:
    """An idempotency key for these, the same until ``submitted``: a run that was interrupted
    between the request and its records asks for no second batch."""
    digest = hashlib.sha256("".join(_sha256(one.spec) for one in asked).encode()).hexdigest()
    file = out / _SUBMISSION
    known, _, key = file.read_text().partition(" ") if file.is_file() else ("", "", "")
    if known != digest:
        key = secrets.token_hex(16)
        out.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{digest} {key}")
    return key


def submitted(out: Path) -> None:
    """All of what ``submission_key`` was for is on record."""
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
