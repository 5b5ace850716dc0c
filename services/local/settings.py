"""Settings of the stack on one machine."""

from __future__ import annotations

from pathlib import Path

from pydantic import AliasChoices, Field
from pydantic_settings import CliSuppress

from services.common.addresses import Host, host_port
from services.common.extras import has_page
from services.common.redis_address import OWN_ADDRESS, RedisUrl
from services.common.settings import ServiceSettings


class LocalSettings(ServiceSettings):
    host: Host = Field(default="127.0.0.1", description="Where the REST API listens.")
    auth: bool = Field(default=False, description="The REST API asks for API keys.")
    insecure: bool = Field(
        default=False, description="Listen beyond loopback without asking for keys."
    )
    ui: bool = Field(
        default_factory=has_page,
        description="The web page at /ui; as a rule where the extra [ui] is installed.",
    )
    port: int = Field(default=8000, ge=1, le=65535, description="Of the REST API.")
    data: Path = Field(
        default=Path("data"), description="Everything the stack keeps: Redis, files, logs."
    )
    # From the environment, as its services read it: it may hold a password.
    redis_url: CliSuppress[RedisUrl | None] = Field(
        default=None,
        repr=False,
        validation_alias=AliasChoices("redis_url", "DUALPROCESS_REDIS_URL", "REDIS_URL"),
        description="A Redis that runs already; as a rule the stack starts its own.",
    )
    generator: str = Field(default="tiny-flux", description="Preset of the generator.")
    vlm: str = Field(default="tiny-idefics2", description="Preset of the VLM.")
    models: str = Field(
        default="",
        description="Presets of several generators and VLMs, with commas between, in place of "
        "--generator and --vlm.",
    )
    slots: int = Field(default=2, ge=1, le=64, description="Jobs at once on a generator.")
    device: str = Field(default="auto", description="cpu, cuda, …; auto: cuda where there is one.")
    load_seconds: float = Field(
        default=3600,
        gt=0,
        description="A model that is not there after so long ends the start.",
    )
    metrics: bool = Field(
        default=False,
        description="Every process shows metrics on a free port of loopback; DATA/metrics has the "
        "list for Prometheus.",
    )
    quiet: bool = Field(default=False, description="Logs go to files only.")

    @property
    def url(self) -> str:
        return f"http://{host_port(self.host, self.port)}"

    @property
    def metrics_targets(self) -> Path:
        """What Prometheus reads to find the processes: ``file_sd_configs`` in its words."""
        return self.data / "metrics" / "targets.json"

    @property
    def redis_folder(self) -> Path:
        """Of the Redis that the stack starts for itself."""
        return self.data / OWN_ADDRESS.parent

    @property
    def artifacts_url(self) -> str:
        return (self.data / "artifacts").resolve().as_uri()
