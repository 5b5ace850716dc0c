"""Where everything durable is: the same for API and workers."""

from __future__ import annotations

from pathlib import Path

from pydantic import AliasChoices, Field

from services.common.settings import ServiceSettings


class StoreSettings(ServiceSettings):
    redis_url: str = Field(
        default="redis://127.0.0.1:6379/0",
        validation_alias=AliasChoices("redis_url", "DUALPROCESS_REDIS_URL", "REDIS_URL"),
        description="Redis 6.2 or newer; with AOF in production.",
    )
    artifacts: str = Field(
        default=(Path.cwd() / "data" / "artifacts").as_uri(),
        description="file:///folder or s3://bucket/prefix.",
    )


class KeySettings(StoreSettings):
    """What a key may ask for when it is made without quotas of its own."""

    quota_queued: int = Field(default=100, ge=1)
    quota_running: int = Field(default=4, ge=1)
    quota_steps: int = Field(default=2000, ge=1)
    quota_body_bytes: int = Field(default=64 * 1024 * 1024, ge=1)
