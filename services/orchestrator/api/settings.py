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

#: The first parts of the service's own paths: after a prefix like one, both would read alike.
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
    host: Host = Field(default="127.0.0.1", description="Where it listens.")
    port: int = Field(default=8000, ge=0, le=65535, description="0 takes a free port.")
    auth: bool = Field(
        default=False, description="Every request needs an API key; see `dualprocess keys`."
    )
    wrong_keys: int = Field(
        default=10,
        ge=1,
        description="Wrong API keys that one address may send; each further one makes it wait, a "
        "second and then twice as long each time. Right keys never wait.",
    )
    wrong_keys_seconds: float = Field(
        default=900,
        gt=0,
        description="The longest of these waits, in seconds; and how long an address has to send "
        "no wrong key until its count begins anew.",
    )
    insecure: bool = Field(
        default=False, description="Listen beyond loopback without asking for keys."
    )
    root_path: str = Field(
        default="", description="The prefix that a proxy serves this under, like /dp."
    )
    trusted_proxies: str = Field(
        default="127.0.0.1,::1",
        description="Addresses or networks, with commas between, whose X-Forwarded-For, -Host, "
        "-Proto and -Prefix are believed; *: everyone's.",
    )
    keep_alive: int = Field(
        default=75,
        ge=1,
        description="Seconds that an idle connection stays open: longer than a proxy keeps its "
        "own.",
    )
    streams: int = Field(
        default=1000,
        ge=1,
        description="Event streams, and requests that wait for their job, at once; more are "
        "refused with a 429.",
    )
    streams_per_key: int = Field(
        default=64, ge=1, description="Of these, at most so many with one API key."
    )
    connections: int = Field(
        default=4000,
        ge=2,
        validate_default=True,
        description="Open connections, idle ones included; beyond them every request, /healthz "
        "too, is answered with a 503. More than --streams.",
    )
    cors_origins: str = Field(
        default="",
        description="Origins, with commas between, whose web pages may call the API, like "
        "https://studio.example; *: everyone's.",
    )
    allowed_hosts: str = Field(
        default="",
        description="Names that it answers to beside addresses and localhost, with commas between, "
        "like dp.example.org or *.example.org; *: every name. With --auth and none here, every "
        "name.",
    )
    ui: bool = Field(default=False, description="The web page at /ui; needs the extra [ui].")
    signed_downloads: int = Field(
        default=0,
        ge=0,
        le=7 * 24 * 3600,
        description="Seconds for which an address in S3 is signed that a download is redirected "
        "to; 0: files go through the API.",
    )
    body_limit: int = Field(
        default=64 * 1024 * 1024, ge=1024, description="Bytes that a request's body may have."
    )
    max_job_work: int = Field(
        default=0,
        ge=0,
        description="The most work that one job may come to, whoever asks; 0: no limit but that "
        "of keys.",
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
    llm_base_url: Annotated[str, AfterValidator(_is_reachable)] | None = Field(
        default=None,
        description="OpenAI-compatible endpoint that writes questions and expands prompts, like "
        "https://api.openai.com/v1; with --llm-model.",
    )
    llm_model: str | None = Field(default=None, description="Its model's name.")
    # From the environment: command lines are there for everyone on the machine to read.
    llm_api_key: CliSuppress[SecretStr | None] = Field(
        default=None, description="What the language model's endpoint asks for, if it does."
    )

    @field_validator("root_path")
    @classmethod
    def _is_prefix(cls, path: str) -> str:
        path = path.rstrip("/")
        if not PREFIX.fullmatch(path):
            raise ValueError("must be a path that begins with /, like /dp")
        if path.split("/")[1:2] and path.split("/")[1] in _OWN:
            raise ValueError("must not begin like a path of the service itself; take another")
        return path

    @field_validator("trusted_proxies")
    @classmethod
    def _are_networks(cls, text: str) -> str:
        try:
            networks(text)
        except ValueError:
            raise ValueError(
                "must be addresses or networks with commas between, like 10.0.0.0/8,::1, or *"
            ) from None
        return text

    @field_validator("cors_origins")
    @classmethod
    def _are_origins(cls, text: str) -> str:
        for origin in _listed(text):
            if origin != "*" and not (_ORIGIN.fullmatch(origin) and _is_url(origin)):
                raise ValueError(
                    "must be origins with commas between, like https://studio.example or "
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
                f"must be more than --streams, which is {streams}: else streams leave no "
                "connection to anybody"
            )
        return connections

    @field_validator("allowed_hosts")
    @classmethod
    def _are_names(cls, text: str) -> str:
        for name in _listed(text):
            if name != "*" and not NAME.fullmatch(name):
                raise ValueError(
                    "must be names with commas between, like dp.example.org or *.example.org, "
                    "without http:// and port"
                )
        return text

    @property
    def names(self) -> list[str]:
        """``allowed_hosts``, with the one that it listens on. A key is worth nothing to a page
        that leads here by a name of its own: where one is asked for, every name will do."""
        if self.auth and not self.allowed_hosts:
            return ["*"]
        return [*_listed(self.allowed_hosts), self.host]

    @property
    def origins(self) -> list[str]:
        return _listed(self.cors_origins)

    def llm_fault(self) -> str | None:
        """Why the language model can't be used as it is named, if it can't."""
        if (self.llm_base_url is None) != (self.llm_model is None):
            return "--llm-base-url and --llm-model go together: set both, or none"
        try:
            self.endpoint()
        except InvalidSetup as error:
            return f"the language model can't be asked: {error}"
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
