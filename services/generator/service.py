"""The generator's process: settings, logs, the model on its device, the server."""

from __future__ import annotations

import asyncio
import sys
from functools import partial

from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging

from dualprocess import printable
from dualprocess.v1 import generator_pb2, generator_pb2_grpc
from services.common.credentials import CredentialsError
from services.common.device import DeviceThread, warn_of_cpu
from services.common.device_health import DeviceHealth, identity
from services.common.device_memory import show_device_memory
from services.common.errors import StartError
from services.common.freed_memory import keep_freed_memory
from services.common.imports import import_first
from services.common.metrics import show_metrics
from services.common.presets import PresetError, load_presets
from services.common.server import Loaded, serve
from services.common.settings import GpuServiceSettings
from services.common.telemetry import configure_logging
from services.common.tracing import configure_tracing
from services.generator import registry
from services.generator.footprint.level import level
from services.generator.probe import probe
from services.generator.servicer import GeneratorServicer


async def main(settings: GpuServiceSettings) -> None:
    preset = settings.applied(load_presets(settings.presets).generator(settings.preset))
    with import_first():
        registry.family_class(preset)
    credentials = settings.credentials()
    device = DeviceThread(settings.device, threads=settings.threads)
    warn_of_cpu(settings.device, device, preset)
    show_device_memory(device.devices)
    show_metrics(settings)

    async def load(port: int) -> Loaded:
        memory = await device.run(level, preset, settings.memory or preset.memory, device.device)
        family = await device.run(registry.load, preset, device.device, memory)
        device_id = identity(device.devices, port)
        servicer = GeneratorServicer(preset, family, device, credentials, device_id)
        return Loaded(
            lambda server: generator_pb2_grpc.add_GeneratorServicer_to_server(servicer, server),
            DeviceHealth(device, device_id, partial(probe, family)),
            servicer.suspend,
        )

    name = generator_pb2.DESCRIPTOR.services_by_name["Generator"].full_name
    try:
        await serve(name, settings, credentials, load)
    finally:
        device.close()


def run() -> None:
    """Serves until a signal ends it, with the settings of the command line."""
    keep_freed_memory()
    settings = GpuServiceSettings.from_command_line()
    configure_logging("generator", settings.log_level, settings.log_format)
    configure_tracing("generator")
    # The log should have no progress bars, and no hints to install torchvision.
    for library in (diffusers_logging, transformers_logging):
        library.disable_progress_bar()
        library.set_verbosity_error()
    try:
        asyncio.run(main(settings))
    except (PresetError, CredentialsError, StartError) as error:
        sys.exit(printable.lines(f"generator: {error}"))
