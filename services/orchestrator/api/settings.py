"""Settings of the API."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from dualprocess.schemas.webhooks import Secret
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
    ui: bool = Field(default=False, description="The web page at /ui; needs the extra [ui].")
    body_limit: int = Field(
        default=64 * 1024 * 1024, ge=1024, description="Bytes that a request's body may have."
    )
    poll_seconds: float = Field(
        default=1.0, gt=0, description="Between looks at what is due: messages, deadlines, sweeps."
    )
    webhook_secret: Secret | None = Field(
        default=None,
        repr=False,
        description="Signs the messages of jobs whose webhook has no secret; whsec_ and base64. "
        "Every holder of an API key who knows it can sign as this service.",
    )
    webhook_pauses: list[Annotated[float, Field(gt=0)]] = Field(
        default=[5, 300, 1800, 7200, 18000, 36000],
        description="Seconds before each further attempt at a message.",
    )
    webhook_loopback: bool = Field(
        default=False, description="Webhooks may reach this machine itself, by http too: for tests."
    )
