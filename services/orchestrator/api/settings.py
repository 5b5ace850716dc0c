"""Settings of the API."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field, SecretStr, ValidationInfo, field_validator
from pydantic_settings import CliSuppress

from dualprocess import urls
from dualprocess.errors import InvalidSetup
from dualprocess.schemas.webhooks import Secret
from services.common.addresses import Host
from services.orchestrator.api.hosts import NAME
from services.orchestrator.api.proxied import PREFIX, networks
from services.orchestrator.settings import StoreSettings
from services.orchestrator.writing.endpoint import Endpoint

#: The first parts of the service's own paths; a prefix must not be one of them.
_OWN = ("v1", "ui", "docs", "redoc", "openapi.json", "healthz", "readyz", "metrics")
_ORIGIN = re.compile(r"https?://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:\d{1,5})?")


def _is_reachable(url: str) -> str:
    try:
        parsed = urls.parsed(url.strip())
    except ValueError as error:
        raise ValueError(str(error)) from None
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ValueError("must begin with http:// or https:// and a host")
    return url.strip()


class ApiSettings(StoreSettings):
    host: Host = Field(default="127.0.0.1", description="Address on which it listens.")
    port: int = Field(default=8000, ge=0, le=65535, description="Port; 0 chooses a free one.")
    auth: bool = Field(
        default=False, description="Every request needs an API key; see `dualprocess keys`."
    )
    wrong_keys: int = Field(
        default=10,
        ge=1,
        description="Wrong API keys that one address may send. Each further one makes it wait: one "
        "second, then twice as long each time. Right keys never wait.",
    )
    wrong_keys_seconds: float = Field(
        default=900,
        gt=0,
        description="The longest of these waits, in seconds. After as long without a wrong key, "
        "the count of an address begins anew.",
    )
    insecure: bool = Field(
        default=False, description="Let other machines use the API without keys."
    )
    root_path: str = Field(
        default="", description="The path under which a proxy serves this service, like /dp."
    )
    trusted_proxies: str = Field(
        default="127.0.0.1,::1",
        description="Addresses or networks of proxies, separated by commas, whose "
        "X-Forwarded-For, -Host, -Proto and -Prefix are believed; * is every address.",
    )
    keep_alive: int = Field(
        default=75,
        ge=1,
        description="Seconds that an idle connection stays open; it should be longer than the "
        "proxy's own.",
    )
    streams: int = Field(
        default=1000,
        ge=1,
        description="The most event streams, and requests that wait for their job, at once; more "
        "are refused with a 429.",
    )
    streams_per_key: int = Field(
        default=64, ge=1, description="The most of these streams and requests with one API key."
    )
    connections: int = Field(
        default=4000,
        ge=2,
        validate_default=True,
        description="The most open connections, including idle ones; beyond that every request, "
        "also /healthz, is answered with a 503. Must be more than --streams.",
    )
    cors_origins: str = Field(
        default="",
        description="Origins, separated by commas, whose web pages may call the API, like "
        "https://studio.example; * is every origin.",
    )
    allowed_hosts: str = Field(
        default="",
        description="Host names, separated by commas, that it answers to, besides IP addresses and "
        "localhost, like dp.example.org or *.example.org; * is every name. With --auth the default "
        "is every name.",
    )
    ui: bool = Field(default=False, description="Serve the web page at /ui; needs the extra [ui].")
    signed_downloads: int = Field(
        default=0,
        ge=0,
        le=7 * 24 * 3600,
        description="Downloads are redirected to S3, with an address that is signed for this many "
        "seconds; 0: files go through the API.",
    )
    body_limit: int = Field(
        default=64 * 1024 * 1024,
        ge=1024,
        description="The most bytes that a request's body may have.",
    )
    max_job_work: int = Field(
        default=0,
        ge=0,
        description="The most work that one job may have, with every key and without one; 0: no "
        "limit except the quotas of keys.",
    )
    poll_seconds: float = Field(
        default=1.0,
        gt=0,
        description="Seconds between two checks for due messages, deadlines and sweeps.",
    )
    webhook_secret: Secret | None = Field(
        default=None,
        repr=False,
        description="Signs the messages of jobs whose webhook has no secret of its own; whsec_ "
        "and base64. Everyone who knows it can sign as this service.",
    )
    webhook_pauses: list[Annotated[float, Field(gt=0)]] = Field(
        default=[5, 300, 1800, 7200, 18000, 36000],
        description="Seconds before each further attempt to send a message.",
    )
    webhook_loopback: bool = Field(
        default=False, description="Allow webhooks to this machine itself, also by http; for tests."
    )
    llm_base_url: Annotated[str, AfterValidator(_is_reachable)] | None = Field(
        default=None,
        description="OpenAI-compatible endpoint that writes questions and expands prompts, like "
        "https://api.openai.com/v1; with --llm-model.",
    )
    llm_model: str | None = Field(default=None, description="The model's name at this endpoint.")
    # From the environment, since everyone on the machine can read command lines.
    llm_api_key: CliSuppress[SecretStr | None] = Field(
        default=None, description="API key for the language model's endpoint, if it needs one."
    )

    @field_validator("root_path")
    @classmethod
    def _is_prefix(cls, path: str) -> str:
        path = path.rstrip("/")
        if not PREFIX.fullmatch(path):
            raise ValueError("must be a path that begins with /, like /dp")
        if path.split("/")[1:2] and path.split("/")[1] in _OWN:
            raise ValueError("must not begin like a path of the service itself; choose another")
        return path

    @field_validator("trusted_proxies")
    @classmethod
    def _are_networks(cls, text: str) -> str:
        try:
            networks(text)
        except ValueError:
            raise ValueError(
                "must be addresses or networks, separated by commas, like 10.0.0.0/8,::1, or *"
            ) from None
        return text

    @field_validator("cors_origins")
    @classmethod
    def _are_origins(cls, text: str) -> str:
        for origin in _listed(text):
            if origin != "*" and not (_ORIGIN.fullmatch(origin) and _is_url(origin)):
                raise ValueError(
                    "must be origins, separated by commas, like https://studio.example or "
                    "http://localhost:3000, without a path or a slash at the end"
                )
        return text

    @field_validator("signed_downloads")
    @classmethod
    def _have_a_store_that_signs(cls, seconds: int, info: ValidationInfo) -> int:
        if seconds and not info.data.get("artifacts", "").startswith("s3://"):
            raise ValueError("needs --artifacts s3://…; a folder signs nothing: leave it out")
        return seconds

    @field_validator("connections")
    @classmethod
    def _leave_room(cls, connections: int, info: ValidationInfo) -> int:
        streams = info.data.get("streams")
        if streams is not None and connections <= streams:
            raise ValueError(
                f"must be more than --streams, which is {streams}: else streams could take all "
                "connections"
            )
        return connections

    @field_validator("allowed_hosts")
    @classmethod
    def _are_names(cls, text: str) -> str:
        for name in _listed(text):
            if name != "*" and not NAME.fullmatch(name):
                raise ValueError(
                    "must be names, separated by commas, like dp.example.org or *.example.org, "
                    "without http:// and port"
                )
        return text

    @property
    def names(self) -> list[str]:
        """``allowed_hosts``, and the host on which it listens. With keys the default is every name:
        a page that makes its own name point to this service does not have the key."""
        if self.auth and not self.allowed_hosts:
            return ["*"]
        return [*_listed(self.allowed_hosts), self.host]

    @property
    def origins(self) -> list[str]:
        return _listed(self.cors_origins)

    def llm_fault(self) -> str | None:
        """Why the language model can't be used with these settings; ``None`` if it can."""
        if (self.llm_base_url is None) != (self.llm_model is None):
            return "--llm-base-url and --llm-model must be set together: set both, or none"
        try:
            self.endpoint()
        except InvalidSetup as error:
            return f"the language model can't be used: {error}"
        return None

    def endpoint(self) -> Endpoint | None:
        """The language model, if there is one."""
        if self.llm_base_url is None or self.llm_model is None:
            return None
        key = self.llm_api_key.get_secret_value() if self.llm_api_key else None
        return Endpoint(self.llm_base_url, self.llm_model, key)


def _is_url(text: str) -> bool:
    try:
        urls.parsed(text)
    except ValueError:
        return False
    return True


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]
