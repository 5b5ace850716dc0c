"""The VLM's process: settings, logs, the model on its device, the server."""

from __future__ import annotations

from functools import partial

from transformers.utils import logging as transformers_logging

from dualprocess.v1 import vlm_pb2, vlm_pb2_grpc
from services.common import gpu_process
from services.common.device import DeviceThread, warn_of_cpu
from services.common.device_health import DeviceHealth, identity
from services.common.device_memory import show_device_memory
from services.common.metrics import show_metrics
from services.common.presets import PresetError, load_presets
from services.common.server import Loaded, serve
from services.common.settings import GpuServiceSettings
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
    gpu_process.run("vlm", main, transformers_logging)
