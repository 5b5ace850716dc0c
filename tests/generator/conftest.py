from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from services.common.device import DeviceThread
from services.common.presets import GeneratorPreset, load_presets
from services.generator import registry
from services.generator.families.base import GeneratorFamily

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
    """One tiny flux-schnell for all tests: each leaves it as it was."""
    return load("flux-schnell")


@pytest.fixture
def device() -> Iterator[DeviceThread]:
    thread = DeviceThread("cpu")
    yield thread
    thread.close()
