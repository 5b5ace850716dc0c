"""The VLM's process: settings, logs, the model on its device, the server."""

from __future__ import annotations

import asyncio
import sys
from functools import partial

from transformers.utils import logging as transformers_logging

from dualprocess import printable
from dualprocess.v1 import vlm_pb2, vlm_pb2_grpc
from services.common.credentials import CredentialsError
from services.common.device import DeviceThread, warn_of_cpu
from services.common.device_health import DeviceHealth, identity
from services.common.device_memory import show_device_memory
from services.common.errors import StartError
from services.common.freed_memory import keep_freed_memory
from services.common.metrics import show_metrics
from services.common.presets import PresetError, load_presets
from services.common.server import Loaded, serve
from services.common.settings import GpuServiceSettings
from services.common.telemetry import configure_logging
from services.common.tracing import configure_tracing
from services.vlm import registry
from services.vlm.footprint.level import level
from services.vlm.probe import probe
from services.vlm.servicer import VlmServicer


async def main(settings: GpuServiceSettings) -> None:
    preset = load_presets(settings.presets).vlm(settings.preset)
    if preset.is_external:
        raise PresetError(
            f"--preset: {preset.name} is external, so it has no weights to load here; start its "
            "own service, and name its address in the workers' --vlms"
        )
    preset = settings.applied(preset)
    credentials = settings.credentials()
    device = DeviceThread(settings.device, threads=settings.threads, several=True)
    warn_of_cpu(settings.device, device, preset)
    show_device_memory(device.devices)
    show_metrics(settings)

    async def load(port: int) -> Loaded:
        memory = await device.run(level, preset, settings.memory or preset.memory, device.devices)
        first, *others = device.devices
        vlm = await device.run(registry.load, preset, first, memory, others)
        device_id = identity(device.devices, port)
        servicer = VlmServicer(preset, vlm, device, device_id)
        return Loaded(
            lambda server: vlm_pb2_grpc.add_VlmServicer_to_server(servicer, server),
            DeviceHealth(device, device_id, partial(probe, vlm)),
        )

    name = vlm_pb2.DESCRIPTOR.services_by_name["Vlm"].full_name
    try:
        await serve(name, settings, credentials, load)
    finally:
        device.close()


def run() -> None:
    """Serves until a signal ends it, with the settings of the command line."""
    keep_freed_memory()
    settings = GpuServiceSettings.from_command_line()
    configure_logging("vlm", settings.log_level, settings.log_format)
    configure_tracing("vlm")
    # The log should have no progress bars, and no hints to install torchvision.
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    try:
        asyncio.run(main(settings))
    except (PresetError, CredentialsError, StartError) as error:
        sys.exit(printable.lines(f"vlm: {error}"))
