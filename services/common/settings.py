"""How every service is configured: flags, then environment (``DUALPROCESS_…``), then secrets
(``/run/secrets/dualprocess_…``), then defaults."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NoReturn, Self

from pydantic import AliasChoices, Field, SecretStr, ValidationError
from pydantic_settings import (
    CLI_SUPPRESS,
    BaseSettings,
    CliApp,
    CliSuppress,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from dualprocess import printable
from services.common.addresses import Host
from services.common.credentials import Credentials, read_credentials
from services.common.environment import Environment
from services.common.memory import MemoryChoice, Quantization
from services.common.presets import DEFAULT_DIRECTORY, PresetT
from services.common.telemetry import LogFormat

#: The folder where Docker and Kubernetes mount secrets; each file is a setting, like a variable.
_SECRETS = Path("/run/secrets")
#: Finds the field in pydantic-settings' message about a text that it can't read.
_UNREAD = re.compile(r'(?:field "|encountered for )(\w+)')


class ServiceSettings(BaseSettings):
    """The settings of all services."""

    model_config = SettingsConfigDict(
        env_prefix="DUALPROCESS_",
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_hide_none_type=True,
        secrets_dir=_SECRETS if _SECRETS.is_dir() else None,
        extra="ignore",
        # The input may be a secret.
        hide_input_in_errors=True,
    )

    presets: Path = Field(default=DEFAULT_DIRECTORY, description="Folder of presets.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info",
        description="Lowest level of messages to log: debug, info, warning or error.",
    )

    log_format: LogFormat = Field(
        default="text",
        description="How the log is written: text for people, or json, one object per line.",
    )

    @classmethod
    def from_command_line(cls) -> Self:
        """Reads flags and environment; if any are wrong, names each and exits with status 2."""
        printable.replace_what_cannot_be_encoded()
        return cls._read(lambda: CliApp.run(cls))

    @classmethod
    def from_environment(cls) -> Self:
        """Reads the environment only."""
        return cls._read(cls)

    @classmethod
    def _read(cls, make: Callable[[], Self]) -> Self:
        try:
            return make()
        except ValidationError as error:
            faults = [
                (str(fault["loc"][0]) if fault["loc"] else "", fault["msg"])
                for fault in error.errors(include_input=False)
            ]
        except SettingsError as error:
            named = _UNREAD.search(str(error))
            faults = [(named[1] if named else "", "must be JSON, and is not")]
        for name, fault in faults:
            said = fault.removeprefix("Input ").removeprefix("Value error, ")
            print(printable.lines(f"{cls._named(name)}: {said}"), file=sys.stderr)
        sys.exit(2)

    def refuse(self, field: str, fault: str) -> NoReturn:
        """Exits as ``from_command_line`` does, for a setting that turns out to be wrong only when
        it is used."""
        print(printable.lines(f"{self._named(field)}: {fault}"), file=sys.stderr)
        sys.exit(2)

    @classmethod
    def _named(cls, name: str) -> str:
        """The flag and variables with which people set the field of this name or alias."""
        field = name.lower().removeprefix("dualprocess_")
        info = cls.model_fields.get(field)
        variables = [f"DUALPROCESS_{field.upper()}"]
        if info is not None and isinstance(info.validation_alias, AliasChoices):
            variables = [str(one) for one in info.validation_alias.choices if one != field]
        if info is not None and CLI_SUPPRESS in info.metadata:
            return " or ".join(variables)
        return f"--{field.replace('_', '-')} (or {', '.join(variables)})"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, Environment(settings_cls), file_secret_settings


class GrpcSettings(ServiceSettings):
    """The settings of a process that is a GPU service or calls one."""

    tls_cert: Path | None = Field(
        default=None, description="PEM certificate of this process; needs --tls-key."
    )
    tls_key: Path | None = Field(default=None, description="PEM key that belongs to --tls-cert.")
    tls_ca: Path | None = Field(
        default=None,
        description="PEM certificates of the authority that signs the other "
        "services' certificates.",
    )
    metrics_port: int | None = Field(
        default=None,
        ge=0,
        le=65535,
        description="Show metrics for Prometheus on this port; 0 takes a free one and logs it.",
    )
    metrics_host: Host = Field(
        default="127.0.0.1",
        description="Where --metrics-port listens. Nobody needs a key there.",
    )
    # From the environment, since everyone on the machine can read command lines.
    grpc_token: CliSuppress[SecretStr | None] = Field(
        default=None, description="Token that the GPU services and their callers share."
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
    """The settings of a service that uses a device."""

    preset: str = Field(description="Name of the preset to serve.")
    host: Host = Field(default="127.0.0.1", description="Address on which it listens.")
    insecure: bool = Field(
        default=False,
        description="Let other machines call this service without token or certificate.",
    )
    port: int = Field(ge=0, le=65535, description="Port; 0 chooses a free port and logs it.")
    device: str = Field(
        default="auto",
        description="cpu, cuda, cuda:1, …; auto: cuda if there is one. cuda:0,cuda:1 spreads a "
        "VLM's layers over both.",
    )
    threads: int = Field(default=1, ge=1, description="Number of threads for computing on the CPU.")
    memory: MemoryChoice | None = Field(
        default=None,
        description="What is computed again to save memory: fast, decoder, blocks, lean, or auto; "
        "instead of the preset's choice.",
    )
    recordings: bool | None = Field(
        default=None,
        description="Whether a GPU runs steps that come again from recordings (CUDA graphs), while "
        "it has memory to spare; instead of the preset's choice.",
    )
    quantize: Quantization | None = Field(
        default=None,
        description="Numbers of the frozen weights: int8, float8 or nf4; instead of the preset's.",
    )
    compile_blocks: bool | None = Field(
        default=None,
        description="Whether a generator compiles its denoiser's repeated blocks, instead of the "
        "preset's choice. The first steps of each image size and rank take minutes longer; later "
        "jobs compile nothing. TORCHINDUCTOR_CACHE_DIR keeps the code for the next start.",
    )

    def applied(self, preset: PresetT) -> PresetT:
        """The preset with what these settings choose instead of it."""
        names = ("quantize", "recordings", "compile_blocks")
        choices = {name: getattr(self, name) for name in names}
        chosen = {
            name: choice
            for name, choice in choices.items()
            if choice is not None and name in type(preset).model_fields
        }
        return preset.model_copy(update=chosen) if chosen else preset
