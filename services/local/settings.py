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
    host: Host = Field(default="127.0.0.1", description="Address on which the REST API listens.")
    auth: bool = Field(default=False, description="Every request to the REST API needs an API key.")
    insecure: bool = Field(
        default=False, description="Let other machines use the API without keys."
    )
    ui: bool = Field(
        default_factory=has_page,
        description="Serve the web page at /ui; by default if the extra [ui] is installed.",
    )
    port: int = Field(default=8000, ge=1, le=65535, description="Port of the REST API.")
    data: Path = Field(
        default=Path("data"), description="Folder for everything that is kept: Redis, files, logs."
    )
    # From the environment, as its services read it: it may hold a password.
    redis_url: CliSuppress[RedisUrl | None] = Field(
        default=None,
        repr=False,
        validation_alias=AliasChoices("redis_url", "DUALPROCESS_REDIS_URL", "REDIS_URL"),
        description="Address of a Redis that is already running; by default the stack starts its "
        "own.",
    )
    generator: str = Field(
        default="tiny-flux",
        description="Preset of the generator. Several are separated by commas, each with the "
        "number of processes: flux-schnell:6,sd-1.4.",
    )
    vlm: str = Field(
        default="tiny-idefics2",
        description="Preset of the VLM. Several as for the generator: idefics2:2,qwen3-vl. "
        "pixtral:1x2 is one process whose layers are spread over two GPUs.",
    )
    teachers: str = Field(
        default="",
        description="Addresses of teachers that somebody else started, by preset: "
        "colour=127.0.0.1:50060. Their presets have the family external.",
    )
    models: str = Field(
        default="",
        description="Presets of generators and VLMs in one such list, instead of --generator and "
        "--vlm.",
    )
    gpus: str = Field(
        default="",
        description="GPUs by nvidia-smi's numbers or UUIDs, like 0-5,7: one for each process, "
        "generators first. By default all GPUs. Processes share them if there are too few.",
    )
    dry_run: bool = Field(default=False, description="Print the plan and start nothing.")
    slots: int = Field(
        default=2, ge=1, le=64, description="How many jobs a generator runs at once."
    )
    device: str = Field(default="auto", description="cpu, cuda, …; auto: cuda if there is one.")
    load_seconds: float = Field(
        default=3600,
        gt=0,
        description="If a model is not loaded after this many seconds, the start fails.",
    )
    metrics: bool = Field(
        default=False,
        description="Show metrics of every process, each on a free port of loopback; "
        "DATA/metrics has the list of them for Prometheus.",
    )
    quiet: bool = Field(default=False, description="Write logs to files only.")

    @property
    def url(self) -> str:
        return f"http://{host_port(self.host, self.port)}"

    @property
    def metrics_targets(self) -> Path:
        """What Prometheus reads to find the processes: ``file_sd_configs`` in its words."""
        return self.data / "metrics" / "targets.json"

    @property
    def redis_folder(self) -> Path:
        """The folder of the Redis that the stack starts for itself."""
        return self.data / OWN_ADDRESS.parent

    @property
    def artifacts_url(self) -> str:
        return (self.data / "artifacts").resolve().as_uri()
