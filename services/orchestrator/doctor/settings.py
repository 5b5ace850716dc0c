"""The settings of the processes of this machine, as their environment has them."""

from __future__ import annotations

from pydantic import Field

from services.common.settings import GrpcSettings
from services.orchestrator.settings import StoreSettings


class DoctorSettings(StoreSettings, GrpcSettings):
    preset: str = Field(default="", description="Preset of a generator or VLM.")
    generator: str = Field(default="", description="Address of a worker's generator.")
    vlms: dict[str, str] = Field(default={}, description="Addresses of a worker's VLMs.")

    @property
    def endpoints(self) -> list[str]:
        """Only a worker has VLMs; without them, `generator` is a preset of `dualprocess up`."""
        return [self.generator, *self.vlms.values()] if self.generator and self.vlms else []
