"""Finished LoRAs at given weights, for rendering. Every method runs on the device's thread."""

from __future__ import annotations

import contextlib
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from peft import LoraConfig
from peft.tuners.lora import LoraLayer

from services.common.errors import InvalidInput
from services.generator.families.base import GeneratorFamily
from services.generator.lora.layers import Lora, attach, detach, fill, silence
from services.generator.lora.read import read_lora


class LoadedLoras:
    """LoRA files on ``family.denoiser``, each an adapter of its own, in float32 over any base dtype
    as in training; ``close`` takes them off.

    ``files`` have any layout that ``read_lora`` reads. ``name`` is unique among what runs on this
    generator. What can't be used of a file is left out, and ``notes`` say so. Raises
    ``InvalidInput`` for a file that is broken or fits another model.
    """

    def __init__(
        self, family: GeneratorFamily, name: str, files: Sequence[bytes], weights: Sequence[float]
    ) -> None:
        #: What is to be known of the files, a sentence each.
        self.notes: list[str] = []
        self._family = family
        self._layers: dict[str, Mapping[str, LoraLayer]] = {}
        try:
            for index, (file, weight) in enumerate(zip(files, weights, strict=True)):
                try:
                    self._load(f"{name}-{index}", file, weight, f"loras.{index}")
                except InvalidInput as error:
                    raise InvalidInput(f"loras.{index}: {error}") from error
        except BaseException:
            self.close()
            raise

    def _load(self, adapter: str, file: bytes, weight: float, field: str) -> None:
        read = read_lora(file, self._family)
        self.notes += [f"{field}: {note}" for note in read.notes]
        layers = attach(self._family.denoiser, adapter, _config(read.loras))
        self._layers[adapter] = layers
        for module, layer in layers.items():
            fill(layer, adapter, read.loras[module], module)
            layer.set_scale(adapter, weight)

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """The denoiser runs with these LoRAs and no other."""
        on: dict[LoraLayer, list[str]] = {}
        for adapter, layers in self._layers.items():
            for layer in layers.values():
                on.setdefault(layer, []).append(adapter)
        for layer, adapters in on.items():
            layer.set_adapter(adapters)
        try:
            yield
        finally:
            silence(self._family.denoiser)

    def close(self) -> None:
        for adapter in self._layers:
            detach(self._family.denoiser, adapter)
        self._layers.clear()


def _config(loras: Mapping[str, Lora]) -> LoraConfig:
    """An adapter on these modules only, each with its own rank; alpha equals rank."""
    by_rank: defaultdict[int, list[str]] = defaultdict(list)
    for module, lora in loras.items():
        by_rank[lora.rank].append(re.escape(module))
    ranks = {f"^(?:{'|'.join(modules)})": rank for rank, modules in by_rank.items()}
    return LoraConfig(
        r=1,
        lora_alpha=1,
        # Patterns, since peft treats names as suffixes.
        target_modules="|".join(map(re.escape, loras)),
        rank_pattern=ranks,
        alpha_pattern=ranks,
        init_lora_weights=False,
    )
