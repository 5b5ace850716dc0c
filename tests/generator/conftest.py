from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import torch

from dualprocess.v1 import generator_pb2_grpc
from services.common.channels import open_channel
from services.common.device import DeviceThread
from services.common.presets import GeneratorPreset, load_presets
from services.generator import registry
from services.generator.families.base import GeneratorFamily
from services.generator.servicer import GeneratorServicer
from tests.generator.wire import ScriptedVlm, served

PARITY = Path(__file__).parents[1] / "fixtures" / "parity"


def preset_of(name: str) -> GeneratorPreset:
    """The real preset, on the tiny random model of that name, in float32."""
    preset = load_presets().generator(name)
    sides = preset.sides.model_copy(update={"minimum": 16})
    return preset.model_copy(
        update={"model": str(PARITY / "models" / name), "dtype": "float32", "sides": sides}
    )


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def load() -> Callable[[str], GeneratorFamily]:
    """Loads a fresh tiny generator by the name of its preset."""
    return lambda name: registry.load(preset_of(name), torch.device("cpu"))


@pytest.fixture(scope="session")
def schnell(load: Callable[[str], GeneratorFamily]) -> GeneratorFamily:
    """One tiny flux-schnell for all tests; each test leaves it unchanged."""
    return load("flux-schnell")


@pytest.fixture
def device() -> Iterator[DeviceThread]:
    thread = DeviceThread("cpu")
    yield thread
    thread.close()


@pytest.fixture
async def stub(
    schnell: GeneratorFamily, device: DeviceThread
) -> AsyncIterator[generator_pb2_grpc.GeneratorAsyncStub]:
    servicer = GeneratorServicer(preset_of("flux-schnell"), schnell, device)
    async with (
        served(
            lambda server: generator_pb2_grpc.add_GeneratorServicer_to_server(servicer, server)
        ) as port,
        open_channel(f"127.0.0.1:{port}") as channel,
    ):
        yield generator_pb2_grpc.GeneratorStub(channel)


@pytest.fixture
def vlm() -> ScriptedVlm:
    return ScriptedVlm()  # type: ignore[abstract]  # only Guide is ever called
