"""How every service is configured: flags, then environment (``DUALPROCESS_…``), then secrets
(``/run/secrets/dualprocess_…``), then defaults."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, CliApp, CliSuppress, SettingsConfigDict

from dualprocess.printable import replace_what_cannot_be_encoded
from services.common.credentials import Credentials, read_credentials
from services.common.presets import DEFAULT_DIRECTORY

#: Where Docker and Kubernetes mount secrets: a file is a setting, as a variable is.
_SECRETS = Path("/run/secrets")


class ServiceSettings(BaseSettings):
    """What all services have."""

    model_config = SettingsConfigDict(
        env_prefix="DUALPROCESS_",
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_hide_none_type=True,
        secrets_dir=_SECRETS if _SECRETS.is_dir() else None,
        extra="ignore",
    )

    presets: Path = Field(default=DEFAULT_DIRECTORY, description="Directory of presets.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="What is logged: this and worse."
    )

    @classmethod
    def from_command_line(cls) -> Self:
        """Reads flags and environment; exits with status 2 when they are wrong, naming each."""
        replace_what_cannot_be_encoded()
        try:
            return CliApp.run(cls)
        except ValidationError as error:
            # Without what was given: it may be a secret.
            for fault in error.errors(include_input=False):
                flag = "".join(f"--{part}" for part in fault["loc"][:1]).replace("_", "-")
                said = fault["msg"].removeprefix("Input ").removeprefix("Value error, ")
                variable = flag.removeprefix("--").replace("-", "_").upper()
                print(f"{flag} (or DUALPROCESS_{variable}): {said}", file=sys.stderr)
            sys.exit(2)


class GrpcSettings(ServiceSettings):
    """What a process adds that calls or is a GPU service."""

    tls_cert: Path | None = Field(
        default=None, description="PEM certificate that this process shows; with --tls-key."
    )
    tls_key: Path | None = Field(default=None, description="PEM key of --tls-cert.")
    tls_ca: Path | None = Field(
        default=None, description="PEM certificates of who signs what the others must show."
    )
    # From the environment: command lines are there for everyone on the machine to read.
    grpc_token: CliSuppress[SecretStr | None] = Field(
        default=None, description="Shared by the GPU services and who calls them."
    )

    def credentials(self) -> Credentials:
        """Raises ``CredentialsError`` for files or a token that can't be used."""
        token = self.grpc_token
        return read_credentials(
            cert=self.tls_cert,
            key=self.tls_key,
            ca=self.tls_ca,
            token=None if token is None else token.get_secret_value(),
        )


class GpuServiceSettings(GrpcSettings):
    """What a service that owns a device adds."""

    preset: str = Field(description="Name of the preset to serve.")
    host: str = Field(default="127.0.0.1", description="Where it listens.")
    insecure: bool = Field(
        default=False, description="Listen beyond loopback without asking who calls."
    )
    port: int = Field(ge=0, le=65535, description="0 takes a free port and logs it.")
    device: str = Field(
        default="auto", description="cpu, cuda, cuda:1, …; auto: cuda where there is one."
    )
    threads: int = Field(default=1, ge=1, description="Threads of CPU arithmetic.")
