"""Weights that live in the host's memory, and come to the device only while something needs them.

Where weights are away, a module has placeholders: parameters of the same shape, dtype and device
without memory of their own. Whoever asks a module for its device finds the right one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

import torch
from torch.nn import Module, Parameter

from services.generator.memory.page_locked import HostMemory


class HostWeights:
    """The frozen parameters that each of ``modules`` itself has; those of submodules are theirs.

    From the start they are away. A graph that was made while they were here keeps what it needs of
    the copies.
    """

    def __init__(self, modules: Iterable[Module], device: torch.device) -> None:
        self._device = device
        own = [
            (module, name, parameter)
            for module in modules
            for name, parameter in module._parameters.items()
            if parameter is not None
        ]
        # A weight may belong to several modules.
        sizes = {id(parameter): parameter.nbytes for _, _, parameter in own}
        places = [(module, name) for module, name, _ in own]
        # From here on each original goes as soon as it is copied.
        del own[:]
        #: What all of them take on the device.
        self.nbytes = sum(sizes.values())
        host = HostMemory(sizes.values(), device)
        masters: dict[int, Parameter] = {}
        self._masters: dict[Module, dict[str, Parameter]] = {}
        self._placeholders: dict[int, Parameter] = {}
        for module, name in places:
            original = module._parameters[name]
            assert original is not None
            key = id(original)
            if key not in masters:
                masters[key] = _frozen(host.take(original))
                self._placeholders[id(masters[key])] = _placeholder(original, device)
            self._masters.setdefault(module, {})[name] = masters[key]
            module._parameters[name] = self._placeholders[id(masters[key])]
            del original

    @property
    def modules(self) -> list[Module]:
        """Those that have weights of their own."""
        return list(self._masters)

    def leave(self) -> None:
        """Gives up the copies on the device."""
        for module in self._masters:
            self._leave(module)

    def come(self) -> None:
        """Until ``leave`` all are on the device; where that is the host's memory, they are the
        masters."""
        copies: dict[int, Parameter] = {}
        for module, masters in self._masters.items():
            for name, master in masters.items():
                if id(master) not in copies:
                    copies[id(master)] = _frozen(master.to(self._device))
                module._parameters[name] = copies[id(master)]

    @contextlib.contextmanager
    def here(self, module: Module) -> Iterator[None]:
        """This module's weights are on the device, as a copy."""
        try:
            for name, master in self._masters[module].items():
                copy = master.detach().to(self._device, non_blocking=True, copy=True)
                module._parameters[name] = _frozen(copy)
            yield
        finally:
            self._leave(module)

    @contextlib.contextmanager
    def on_host(self, module: Module) -> Iterator[None]:
        """The module has its masters, and computes in the host's memory."""
        try:
            module._parameters.update(self._masters[module])
            yield
        finally:
            self._leave(module)

    def _leave(self, module: Module) -> None:
        for name, master in self._masters[module].items():
            module._parameters[name] = self._placeholders[id(master)]


def _frozen(tensor: torch.Tensor) -> Parameter:
    return tensor if isinstance(tensor, Parameter) else Parameter(tensor, requires_grad=False)


def _placeholder(original: torch.Tensor, device: torch.device) -> Parameter:
    return _frozen(original.detach().new_zeros(1, device=device).expand(original.shape))
