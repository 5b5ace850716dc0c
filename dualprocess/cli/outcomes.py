"""The folder that ``dualprocess batch`` fills: one folder per job, with a record of the job.

A record is found by the hash of its spec, whatever its folder is called and wherever the job stands
in the data set. A second run with the same folder goes on where the first one stopped.
"""

from __future__ import annotations

import hashlib
import itertools
import secrets
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ValidationError

from dualprocess.schemas import Artifact, Job, JobSpec, JobStatus

#: These files stand beside the folders.
REPORT = "report.html"
_RECORD = "outcome.json"
_SUBMISSION = ".submission"
#: This much of the spec's hash is enough to tell folders apart.
_HASH_CHARACTERS = 12
#: Some file systems allow only 143 bytes in a name.
_NAME_BYTES = 120


class _Record(BaseModel):
    spec_sha256: str
    job: Job
    ended_early: str | None = None


class _Submission(BaseModel):
    key: str
    specs_sha256: list[str]


@dataclass
class Outcome:
    """One job of a data set: its spec, the folder for its files, and the job as it was last seen.
    ``ended_early`` says why ``--halve`` stopped it."""

    spec: JobSpec
    folder: Path
    job: Job | None = None
    ended_early: str | None = None

    @property
    def is_done(self) -> bool:
        """The job succeeded, or was stopped as one of the worse, and all its files that are kept
        are here."""
        ended = self.job is not None and (
            self.job.status == JobStatus.SUCCEEDED
            or (self.ended_early is not None and self.job.status.is_final)
        )
        return ended and not self.missing()

    @property
    def is_begun(self) -> bool:
        """There is a job that succeeded or may still succeed, or that was stopped as one of the
        worse."""
        return self.job is not None and not self.ended_badly

    @property
    def ended_badly(self) -> bool:
        bad = (JobStatus.FAILED, JobStatus.CANCELLED)
        return self.job is not None and self.job.status in bad and not self.ended_early

    def kept(self) -> list[Artifact]:
        """The job's files that are downloaded: the LoRA, the pictures, the measurements."""
        artifacts = self.job.artifacts if self.job else []
        return [
            artifact
            for artifact in artifacts
            if not artifact.name.startswith(("preview-", "start.", _RECORD))
        ]

    def missing(self) -> list[Artifact]:
        """The files that are not here, or not complete."""
        return [
            artifact
            for artifact in self.kept()
            if not (path := self.folder / artifact.name).is_file()
            or path.stat().st_size != artifact.bytes
        ]

    def record(self, job: Job) -> None:
        """Writes the job down for the next run."""
        self.job = job
        self.folder.mkdir(parents=True, exist_ok=True)
        record = _Record(spec_sha256=_sha256(self.spec), job=job, ended_early=self.ended_early)
        part = self.folder / f".{_RECORD}.part"
        part.write_text(record.model_dump_json(indent=1), encoding="utf-8")
        part.replace(self.folder / _RECORD)


def outcomes(specs: Sequence[JobSpec], out: Path) -> list[Outcome]:
    """What ``out`` has of each spec. Equal specs have a folder each."""
    known = _known(out)
    taken = {folder for found in known.values() for folder, _ in found}
    outcomes = []
    for spec in specs:
        sha256 = _sha256(spec)
        if known[sha256]:
            folder, record = known[sha256].pop(0)
            outcomes.append(Outcome(spec, folder, record.job, record.ended_early))
        else:
            folder = next(new for new in _folders(spec, out) if new not in taken)
            taken.add(folder)
            outcomes.append(Outcome(spec, folder))
    return outcomes


def _known(out: Path) -> defaultdict[str, list[tuple[Path, _Record]]]:
    """The records in ``out``, by the hashes of their specs."""
    known: defaultdict[str, list[tuple[Path, _Record]]] = defaultdict(list)
    for path in sorted(out.glob(f"*/{_RECORD}")):
        try:
            record = _Record.model_validate_json(path.read_bytes())
        except (FileNotFoundError, ValidationError):
            continue
        known[record.spec_sha256].append((path.parent, record))
    return known


def submission(asked: Sequence[Outcome], out: Path) -> str:
    """Makes an idempotency key for the request of these jobs. ``interrupted`` finds it until
    ``submitted`` is called."""
    made = _Submission(key=secrets.token_hex(16), specs_sha256=[_sha256(one.spec) for one in asked])
    out.mkdir(parents=True, exist_ok=True)
    (out / _SUBMISSION).write_text(made.model_dump_json(), encoding="utf-8")
    return made.key


def interrupted(found: Sequence[Outcome], out: Path) -> tuple[str, list[Outcome]]:
    """What an earlier run submitted without recording all of it, and its key: sending the same
    request again makes no second batch. Empty if one of its specs is no longer in the data set."""
    try:
        made = _Submission.model_validate_json((out / _SUBMISSION).read_bytes())
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
    """Says that all jobs of the ``submission`` are recorded."""
    (out / _SUBMISSION).unlink(missing_ok=True)


def _folders(spec: JobSpec, out: Path) -> Iterator[Path]:
    """Folders for a new job, the best first. They are readable, and different for different specs
    even on file systems that ignore case or the two ways to encode an ü."""
    name = unicodedata.normalize("NFC", spec.name or "job")
    # Letters, marks and numbers of every script.
    kept = "".join(c if unicodedata.category(c)[0] in "LMN" or c == "_" else " " for c in name)
    stem = "-".join(kept.split()).encode()[:_NAME_BYTES].decode(errors="ignore").strip("-")
    folder = f"{stem or 'job'}-{_sha256(spec)[:_HASH_CHARACTERS]}"
    yield out / folder
    for number in itertools.count(2):
        yield out / f"{folder}-{number}"


def _sha256(spec: JobSpec) -> str:
    return hashlib.sha256(spec.model_dump_json(exclude_unset=True).encode()).hexdigest()
