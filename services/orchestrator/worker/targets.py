"""Where the VLMs of a worker answer, and how it reaches them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from services.common.credentials import Credentials
from services.common.replicas import Replicas


@dataclass(frozen=True)
class Targets:
    """``addresses`` has the gRPC target of each VLM by preset."""

    addresses: Mapping[str, str]
    credentials: Credentials

    def open(self, vlm: str) -> Replicas:
        return Replicas(self.addresses[vlm], self.credentials, preset=vlm)
