"""A job's files on the disk of whoever asks."""

from __future__ import annotations

from pathlib import Path, PurePosixPath, PureWindowsPath

from dualprocess.cli.session import JOB_ENDED_BADLY, fail
from dualprocess.client import Client


def download(client: Client, job_id: str, name: str, folder: Path) -> Path:
    """Downloads a file into ``folder``, under its own name. Ends the command for a name with which
    a service could write anywhere else."""
    plain = PurePosixPath(name).name == name == PureWindowsPath(name).name
    if not plain or "\0" in name or name in ("", ".", ".."):
        fail(f"the service names a file {name!r}, which is no plain file name", JOB_ENDED_BADLY)
    return client.download(job_id, name, folder / name)
