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
