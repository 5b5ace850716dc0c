"""The environment as a source of settings, without variables that nobody meant as settings."""

from __future__ import annotations

import re

from pydantic_settings import BaseSettings, EnvSettingsSource

#: The value that Kubernetes gives to the variable NAME_PORT in every pod, if there is a service of
#: that name.
_SERVICE_PORT = re.compile(r"(tcp|udp|sctp)://\S+")


class Environment(EnvSettingsSource):
    """Ignores empty variables, and those that Kubernetes made."""

    def __init__(self, settings_cls: type[BaseSettings]) -> None:
        super().__init__(settings_cls)
        self.env_vars = {
            name: value
            for name, value in self.env_vars.items()
            if value and value.strip() and not _is_kubernetes(name, value)
        }


def _is_kubernetes(name: str, value: str) -> bool:
    return name.lower().endswith("_port") and _SERVICE_PORT.fullmatch(value) is not None
