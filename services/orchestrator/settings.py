"""Where durable data is kept: the same settings for API and workers."""

from __future__ import annotations

from pathlib import Path

from pydantic import AliasChoices, Field

from services.common.redis_address import RedisUrl, redis_refusal
from services.common.redis_state import first_look
from services.common.settings import ServiceSettings


class StoreSettings(ServiceSettings):
    redis_url: RedisUrl = Field(
        default="redis://127.0.0.1:6379/0",
        repr=False,
        validation_alias=AliasChoices("redis_url", "DUALPROCESS_REDIS_URL", "REDIS_URL"),
        description="Address of Redis, 6.2 or newer; use AOF in production.",
    )
    redis_strict: bool = Field(
        default=False,
        description="Refuse to start with a Redis that may lose jobs: one that may delete keys, "
        "writes no append-only file, is too old, or has another time.",
    )
    artifacts: str = Field(
        default=(Path.cwd() / "data" / "artifacts").as_uri(),
        description="Where files are kept: file:///folder or s3://bucket/prefix.",
    )
    store_seconds: float = Field(
        default=20,
        gt=0,
        description="An artifact store that is silent for so long counts as away.",
    )
    keep_days: float = Field(
        default=30,
        ge=0,
        description="Days after which ended jobs and their files are deleted; 0: never.",
    )
    keep_events_days: float = Field(
        default=7,
        ge=0,
        description="Days after which the events of ended jobs, except the "
        "last, are deleted; 0: with the job.",
    )
    sweep_seconds: float = Field(
        default=60, gt=0, description="Seconds between two searches for jobs to delete."
    )

    def check_redis(self) -> None:
        """Exits, with the remedy, if this Redis can never be used. If it does not answer, it may
        later."""
        if refusal := redis_refusal(self.redis_url):
            self.refuse("redis_url", refusal)
        seen = first_look(self.redis_url) if self.redis_strict else None
        if seen is not None and seen.findings:
            self.refuse("redis_strict", "; ".join(seen.findings))


class KeySettings(StoreSettings):
    """The quotas of a key that is made without quotas of its own."""

    quota_queued: int = Field(default=100, ge=1)
    quota_running: int = Field(default=4, ge=1)
    quota_steps: int = Field(default=2000, ge=1)
    quota_body_bytes: int = Field(default=64 * 1024 * 1024, ge=1)
    #: Enough for as many jobs as may be queued, with the defaults of any preset.
    quota_work: int = Field(default=500_000, ge=1)
