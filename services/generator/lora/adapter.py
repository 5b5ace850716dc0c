"""The LoRA of one job: attach, switch on and off, read out."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

import torch

from dualprocess.v1 import generator_pb2 as pb
from services.common.errors import InvalidInput
from services.common.lora_layouts.targets import more_targets, unnamed
from services.generator.adapters.low_rank import LowRank
from services.generator.adapters.switchboard import Adapter
from services.generator.families.base import GeneratorFamily
from services.generator.lora.layers import (
    Lora,
    adaptable,
    base_modules,
    can_be_adapted,
    fill,
    in_groups,
)


class LoraAdapter:
    """A trainable LoRA on ``family.denoiser``, float32 over any base dtype.

    y = W x + s B(A(x)) with s = weight * alpha / rank (Hu et al., 2021). The same ``seed`` gives
    the same initial weights. ``start`` is a LoRA to begin with: at first s B(A(x)) is its effect.
    Ranks and modules that it lacks are initialised as without it. Raises ``InvalidInput`` for
    target modules the denoiser lacks, and for a start that doesn't fit them.
    """

    def __init__(
        self,
        family: GeneratorFamily,
        name: str,
        spec: pb.LoraSpec,
        seed: int,
        start: Mapping[str, Lora] = MappingProxyType({}),
    ) -> None:
        self._family = family
        self._name = name
        self._spec = spec
        modules = _targeted(family.denoiser, spec.target_modules)
        ranks = dict.fromkeys(modules, spec.rank)
        self._adapter = family.adapters.attach(name, ranks, _scale(spec))
        generator = torch.Generator("cpu").manual_seed(seed)
        try:
            for lora in self._adapter.values():
                _initialise(lora, spec, generator)
            _begin_with(start, self._adapter, spec, family)
        except BaseException:
            family.adapters.detach(name)
            raise
        self.named_parameters: dict[str, torch.Tensor] = {
            f"{module}.{half}.weight": matrix.requires_grad_()
            for module, lora in self._adapter.items()
            for half, matrix in (("lora_A", lora.A), ("lora_B", lora.B))
        }
        self.parameters = list(self.named_parameters.values())

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """The denoiser runs with this LoRA and no other.

        Run the backward pass inside as well: gradient checkpointing runs the forward pass again.
        """
        with self._family.adapters.only([self._name]):
            yield

    def tensors(self) -> dict[str, torch.Tensor]:
        """The LoRA in the diffusers layout, on the CPU, the scale s multiplied into ``lora_B``."""
        scale = _scale(self._spec)
        tensors: dict[str, torch.Tensor] = {}
        for module, lora in self._adapter.items():
            key = f"{self._family.lora_prefix}.{module}"
            tensors[f"{key}.lora_A.weight"] = lora.A.detach().cpu().contiguous()
            tensors[f"{key}.lora_B.weight"] = (lora.B.detach() * scale).cpu().contiguous()
        return tensors

    def remove(self) -> None:
        """Takes the LoRA off the denoiser and frees it. Autograd graphs that still exist keep what
        they need."""
        self._family.adapters.detach(self._name)
        self._adapter = {}
        self.parameters.clear()
        self.named_parameters.clear()


def _targeted(denoiser: torch.nn.Module, targets: Sequence[str]) -> list[str]:
    """The modules whose names end with a target, in the denoiser's order."""
    layers = base_modules(denoiser)
    found = set[str]()
    for target in targets:
        matches = {
            name: layer
            for name, layer in layers.items()
            if name == target or name.endswith(f".{target}")
        }
        if not matches or not all(map(can_be_adapted, matches.values())):
            raise InvalidInput(
                f"lora.target_modules: {target!r} names no linear or convolution layer of "
                f"{type(denoiser).__name__}; leave the field out for the preset's own"
            )
        if any(map(in_groups, matches.values())):
            raise InvalidInput(
                f"lora.target_modules: {target!r} names a convolution with groups, for which "
                "diffusers can't load a LoRA; leave it out"
            )
        found |= matches.keys()
    return [name for name in layers if name in found]


def _initialise(lora: LowRank, spec: pb.LoraSpec, generator: torch.Generator) -> None:
    # Drawn on the CPU, so that every device starts from the same weights. B begins as zeros.
    init = torch.empty(lora.A.shape)
    if spec.init == pb.LORA_INIT_KAIMING:
        torch.nn.init.kaiming_uniform_(init, a=math.sqrt(5), generator=generator)
    else:
        torch.nn.init.normal_(init, std=1 / spec.rank, generator=generator)
    lora.A.copy_(init)


def _begin_with(
    start: Mapping[str, Lora], adapter: Adapter, spec: pb.LoraSpec, family: GeneratorFamily
) -> None:
    """Puts ``start`` into the adapter; its rows of A and columns of B come first."""
    if missing := unnamed(start, spec.target_modules):
        targets = more_targets(missing, spec.target_modules, adaptable(family.denoiser))
        raise InvalidInput(
            f"lora.start: it adapts {len(missing)} layers, like {missing[0]}, that "
            f"lora.target_modules doesn't name; write lora.target_modules: {targets}"
        )
    rank = max((lora.rank for lora in start.values()), default=0)
    if rank > spec.rank:
        raise InvalidInput(f"lora.start: its rank is {rank}; write lora.rank: {rank} or more")
    for module, lora in start.items():
        try:
            fill(adapter[module], lora, module, scale=_scale(spec))
        except InvalidInput as error:
            raise InvalidInput(f"lora.start: {error}") from error


def _scale(spec: pb.LoraSpec) -> float:
    return spec.weight * spec.alpha / spec.rank
