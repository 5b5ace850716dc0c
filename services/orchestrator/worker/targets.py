"""Where the VLMs of a worker answer, and how it reaches them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import grpc

from services.common.channels import open_channel
from services.common.credentials import Credentials


@dataclass(frozen=True)
class Vlm:
    """One VLM, for sentences and for metrics."""

    preset: str
    target: str

    def __str__(self) -> str:
        return f"{self.preset} at {self.target}"


@dataclass(frozen=True)
class Targets:
    """``addresses`` has the gRPC target of each VLM by preset."""

    addresses: Mapping[str, str]
    credentials: Credentials

    def named(self, vlm: str) -> Vlm:
        return Vlm(vlm, self.addresses[vlm])

    def open(self, vlm: str) -> grpc.aio.Channel:
        return open_channel(self.addresses[vlm], self.credentials)
