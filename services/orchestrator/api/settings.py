"""Settings of the API."""

from __future__ import annotations

from pydantic import Field

from services.orchestrator.settings import StoreSettings


class ApiSettings(StoreSettings):
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    auth: bool = Field(
        default=False, description="Every request needs an API key; see `dualprocess keys`."
    )
    insecure: bool = Field(
        default=False, description="Listen beyond loopback without asking for keys."
    )
    body_limit: int = Field(
        default=64 * 1024 * 1024, ge=1024, description="Bytes that a request's body may have."
    )
