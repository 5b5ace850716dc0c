"""Finished LoRAs at given weights, for rendering. Every method runs on the device's thread."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch
from peft.tuners.lora import LoraLayer
from safetensors import SafetensorError
from safetensors.torch import load

from services.common.errors import InvalidInput
from services.generator.families.base import GeneratorFamily
from services.generator.lora.adapter import several_adapters, silence


class LoadedLoras:
    """LoRA files on ``family.denoiser``, each an adapter of its own; ``close`` takes them off.

    ``files`` are safetensors in the diffusers layout. ``name`` is unique among what runs on this
    generator. Raises ``InvalidInput`` for a file that is broken or fits another model.
    """

    def __init__(
        self, family: GeneratorFamily, name: str, files: Sequence[bytes], weights: Sequence[float]
    ) -> None:
        self._family = family
        self._names: list[str] = []
        self._weights = list(weights)
        try:
            for index, file in enumerate(files):
                self._load(f"{name}-{index}", file, f"loras.{index}")
        except BaseException:
            self.close()
            raise

    def _load(self, adapter: str, file: bytes, field: str) -> None:
        try:
            tensors = load(file)
        except SafetensorError as error:
            raise InvalidInput(f"{field}: not a safetensors file: {error}") from error
        wanted = sum(key.endswith("lora_A.weight") for key in tensors)
        try:
            with several_adapters():
                self._family.pipeline.load_lora_weights(tensors, adapter_name=adapter)
        except torch.OutOfMemoryError:
            raise
        except (ValueError, RuntimeError) as error:
            raise InvalidInput(f"{field}: does not fit this model: {error}") from error
        finally:
            silence(self._family.denoiser)
        self._names.append(adapter)
        found = sum(
            isinstance(module, LoraLayer) and adapter in module.lora_A
            for module in self._family.denoiser.modules()
        )
        # diffusers logs keys that fit no layer, and goes on with an unchanged image.
        if found == 0 or found != wanted:
            raise InvalidInput(
                f"{field}: {wanted} layers in the file, {found} of them in the model"
            )

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """The denoiser runs with these LoRAs and no other."""
        if self._names:
            self._family.pipeline.set_adapters(self._names, self._weights)
        try:
            yield
        finally:
            silence(self._family.denoiser)

    def close(self) -> None:
        if self._names:
            self._family.pipeline.delete_adapters(self._names)
            silence(self._family.denoiser)
            self._names.clear()
