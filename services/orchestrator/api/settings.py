"""Settings of the API."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, HttpUrl, SecretStr
from pydantic_settings import CliSuppress

from dualprocess.schemas.webhooks import Secret
from services.orchestrator.settings import StoreSettings
from services.orchestrator.writing.endpoint import Endpoint


class ApiSettings(StoreSettings):
    host: str = Field(default="127.0.0.1", description="Where it listens.")
    port: int = Field(default=8000, ge=0, le=65535, description="0 takes a free port.")
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
    llm_base_url: HttpUrl | None = Field(
        default=None,
        description="OpenAI-compatible endpoint that writes questions and expands prompts, like "
        "https://api.openai.com/v1; with --llm-model.",
    )
    llm_model: str | None = Field(default=None, description="Its model's name.")
    # From the environment: command lines are there for everyone on the machine to read.
    llm_api_key: CliSuppress[SecretStr | None] = Field(
        default=None, description="What the language model's endpoint asks for, if it does."
    )

    # No validator: pydantic would show the key beside its message.
    def llm_fault(self) -> str | None:
        """Why the language model can't be used as it is named, if it can't."""
        if (self.llm_base_url is None) != (self.llm_model is None):
            return "--llm-base-url and --llm-model go together: set both, or none"
        return None

    def endpoint(self) -> Endpoint | None:
        """The language model, if there is one."""
        if self.llm_base_url is None or self.llm_model is None:
            return None
        key = self.llm_api_key.get_secret_value() if self.llm_api_key else None
        return Endpoint(str(self.llm_base_url), self.llm_model, key)
