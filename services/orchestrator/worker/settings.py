"""Settings of a worker."""

from __future__ import annotations

import socket
from pathlib import Path

from pydantic import Field, ValidationInfo, field_validator

from services.common.addresses import Target
from services.common.settings import GrpcSettings
from services.orchestrator.settings import StoreSettings


class WorkerSettings(StoreSettings, GrpcSettings):
    generator: Target = Field(description="gRPC target of the generator that this worker drives.")
    vlms: dict[str, Target] = Field(
        description='gRPC target of each VLM by preset, as JSON: {"idefics2": "dns:///vlm:50052"}.'
    )
    name: str = Field(
        default_factory=socket.gethostname, description="Name of this worker in logs."
    )
    slots: int = Field(
        default=2, ge=1, le=64, description="How many jobs run at once on the generator."
    )
    attempts: int = Field(
        default=3,
        ge=1,
        le=100,
        description="After this many attempts in a row without a newer checkpoint a job fails.",
    )
    pause_seconds: float = Field(
        default=1.0,
        ge=0,
        description="Seconds of the pause after a failed attempt; doubled for each further one in "
        "a row.",
    )
    lease_seconds: float = Field(
        default=30.0,
        gt=0,
        description="A worker that does not renew its leases for this many seconds loses its jobs.",
    )
    poll_seconds: float = Field(
        default=0.25, gt=0, description="Seconds between two checks of an empty queue."
    )
    alive_file: Path | None = Field(
        default=None,
        description="A file that it touches every few seconds while it runs, for programs that "
        "watch it, since a worker has no port.",
    )

    @field_validator("poll_seconds")
    @classmethod
    def _looks_often(cls, seconds: float, info: ValidationInfo) -> float:
        # Leases count as over only while somebody looks at them often.
        if seconds > info.data.get("lease_seconds", seconds * 4) / 4:
            raise ValueError("must be at most a quarter of --lease-seconds")
        return seconds
