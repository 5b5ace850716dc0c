"""Finished LoRAs at given weights, for rendering. Every method runs on the device's thread."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from services.common.errors import InvalidInput
from services.generator.families.base import GeneratorFamily
from services.generator.lora.layers import fill
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
        self._names: list[str] = []
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
        ranks = {module: lora.rank for module, lora in read.loras.items()}
        attached = self._family.adapters.attach(adapter, ranks, weight)
        self._names.append(adapter)
        for module, lora in read.loras.items():
            fill(attached[module], lora, module)

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """The denoiser runs with these LoRAs and no other."""
        with self._family.adapters.only(self._names):
            yield

    def close(self) -> None:
        for name in self._names:
            self._family.adapters.detach(name)
        self._names.clear()
