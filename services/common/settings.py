"""How every service is configured: flags, then environment (``DUALPROCESS_…``), then defaults."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field
from pydantic_settings import BaseSettings, CliApp, SettingsConfigDict

from services.common.presets import DEFAULT_DIRECTORY


class ServiceSettings(BaseSettings):
    """What all services have."""

    model_config = SettingsConfigDict(
        env_prefix="DUALPROCESS_",
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_hide_none_type=True,
        extra="ignore",
    )

    presets: Path = Field(default=DEFAULT_DIRECTORY, description="Directory of presets.")
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @classmethod
    def from_command_line(cls) -> Self:
        """Reads flags and environment; exits with usage and status 2 when they are wrong."""
        return CliApp.run(cls)


class GpuServiceSettings(ServiceSettings):
    """What a service that owns a device adds."""

    preset: str = Field(description="Name of the preset to serve.")
    host: str = "127.0.0.1"
    port: int = Field(ge=0, le=65535, description="0 takes a free port and logs it.")
    device: str = Field(
        default="auto", description="cpu, cuda, cuda:1, …; auto: cuda where there is one."
    )
    threads: int = Field(default=1, ge=1, description="Threads of CPU arithmetic.")
