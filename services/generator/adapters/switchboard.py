"""The adapters on one denoiser, and which of them are on.

Several jobs share one frozen denoiser. Whoever runs it says first which adapters take part;
without a word the base model runs.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import torch

from services.generator.adapters.adapted import Adapted, adapted
from services.generator.adapters.low_rank import LowRank

#: One adapter: the LoRA of each module, by the module's name in the denoiser.
Adapter = Mapping[str, LowRank]


class Switchboard:
    """``attach`` and ``detach`` adapters by name; within ``only`` the denoiser runs with those.

    Layers are touched only when the denoiser is to run with other adapters than the last time.
    ``dtype`` is that of the layers' inputs. Layers that had an adapter keep room for the next one.
    """

    def __init__(self, denoiser: torch.nn.Module, device: torch.device, dtype: torch.dtype) -> None:
        self._denoiser = denoiser
        self._device = device
        self._dtype = dtype
        self._adapters: dict[str, Adapter] = {}
        self._layers: dict[str, Adapted] = {}
        #: As the layers are, and as the next run of the denoiser is to find them.
        self._on: tuple[str, ...] = ()
        self._wanted: tuple[str, ...] = ()
        #: Sums of the versions of A and B that a and b were made of.
        self._copied: dict[str, int] = {}
        denoiser.register_forward_pre_hook(lambda *_: self._switch(self._wanted))

    @property
    def adapters(self) -> Mapping[str, Adapter]:
        """All that are attached, on or not."""
        return self._adapters

    def attach(self, name: str, ranks: Mapping[str, int], scale: float) -> Adapter:
        """A new adapter of zeros, off: for each module its rank. ``scale`` is s.

        Its A and B may be changed in place, outside of ``only``.
        """
        s = torch.tensor(scale, dtype=torch.float32, device=self._device)
        adapter = {
            module: self._with_room(module).new_lora(rank, s, self._dtype)
            for module, rank in ranks.items()
        }
        self._adapters[name] = adapter
        return adapter

    def detach(self, name: str) -> None:
        """Forgets the adapter, if it is there."""
        if name in self._on:
            self._switch(())
        self._adapters.pop(name, None)
        self._copied.pop(name, None)

    @contextlib.contextmanager
    def only(self, names: Sequence[str]) -> Iterator[None]:
        """The denoiser runs with these adapters. Backward passes belong inside too: checkpointed
        blocks run again in them."""
        self._wanted = tuple(names)
        for name in self._wanted:
            self._copy(name)
        self._switch(self._wanted)
        try:
            yield
        finally:
            self._wanted = ()

    def _switch(self, names: tuple[str, ...]) -> None:
        if names == self._on:
            return
        loras = defaultdict[str, list[LowRank]](list)
        for name in self._on:
            loras |= {module: [] for module in self._adapters[name]}
        for name in names:
            for module, lora in self._adapters[name].items():
                loras[module].append(lora)
        for module, of_layer in loras.items():
            self._layers[module].put_on(tuple(of_layer))
        self._on = names

    @torch.no_grad()
    def _copy(self, name: str) -> None:
        """Rounds A and s B, if they have changed since the last time."""
        if self._dtype == torch.float32:
            return
        loras = self._adapters[name].values()
        version = sum(lora.A._version + lora.B._version for lora in loras)
        if self._copied.get(name) == version or not loras:
            return
        torch._foreach_copy_([lora.a for lora in loras], [lora.A for lora in loras])
        scaled = torch._foreach_mul([lora.B for lora in loras], next(iter(loras)).scale)
        torch._foreach_copy_([lora.b for lora in loras], scaled)
        self._copied[name] = version

    def _with_room(self, module: str) -> Adapted:
        if module not in self._layers:
            layer = adapted(self._denoiser.get_submodule(module))
            parent, _, attribute = module.rpartition(".")
            setattr(self._denoiser.get_submodule(parent), attribute, layer)
            self._layers[module] = layer
        return self._layers[module]
