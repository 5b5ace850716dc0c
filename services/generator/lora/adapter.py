"""The LoRA of one job: attach, switch on and off, read out."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

import torch
from peft import LoraConfig
from peft.tuners.lora import LoraLayer

from dualprocess.v1 import generator_pb2 as pb
from services.common.errors import InvalidInput
from services.common.lora_layouts.targets import more_targets, unnamed
from services.generator.families.base import GeneratorFamily
from services.generator.lora.layers import (
    Lora,
    adaptable,
    attach,
    base_modules,
    can_be_adapted,
    detach,
    fill,
    in_groups,
    silence,
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
        _check_targets(family.denoiser, spec.target_modules)
        config = LoraConfig(
            r=spec.rank,
            lora_alpha=spec.alpha,
            target_modules=list(spec.target_modules),
            init_lora_weights=False,
        )
        self._layers = attach(family.denoiser, name, config)
        generator = torch.Generator("cpu").manual_seed(seed)
        try:
            for layer in self._layers.values():
                layer.set_scale(name, spec.weight)
                _initialise(layer, name, spec, generator)
            _begin_with(start, self._layers, name, spec, family)
        except BaseException:
            detach(family.denoiser, name)
            raise
        self.named_parameters: dict[str, torch.nn.Parameter] = {
            f"{module}.{half}.weight": getattr(layer, half)[name].weight
            for module, layer in self._layers.items()
            for half in ("lora_A", "lora_B")
        }
        self.parameters = list(self.named_parameters.values())

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """The denoiser runs with this LoRA, and only its parameters take gradients.

        Run the backward pass inside as well: parameters of inactive adapters get no gradient, and
        gradient checkpointing runs the forward pass again.
        """
        for layer in self._layers.values():
            layer.set_adapter([self._name])
        try:
            yield
        finally:
            silence(self._family.denoiser)

    def tensors(self) -> dict[str, torch.Tensor]:
        """The LoRA in the diffusers layout, on the CPU, the scale s multiplied into ``lora_B``."""
        scale = _scale(self._spec)
        tensors: dict[str, torch.Tensor] = {}
        for module, layer in self._layers.items():
            key = f"{self._family.lora_prefix}.{module}"
            lora_A = layer.lora_A[self._name].weight.detach()
            lora_B = layer.lora_B[self._name].weight.detach()
            tensors[f"{key}.lora_A.weight"] = lora_A.cpu().contiguous()
            tensors[f"{key}.lora_B.weight"] = (lora_B * scale).cpu().contiguous()
        return tensors

    def remove(self) -> None:
        """Takes the LoRA off the denoiser and frees it. Autograd graphs that still exist keep what
        they need."""
        detach(self._family.denoiser, self._name)
        self._layers.clear()
        self.parameters.clear()
        self.named_parameters.clear()


def _check_targets(denoiser: torch.nn.Module, targets: Sequence[str]) -> None:
    """Checks the target modules first, since peft stops half-way at a layer that it can't adapt."""
    layers = base_modules(denoiser)
    for target in targets:
        matches = [
            layer for name, layer in layers.items() if name == target or name.endswith(f".{target}")
        ]
        if not matches or not all(map(can_be_adapted, matches)):
            raise InvalidInput(
                f"lora.target_modules: {target!r} names no linear or convolution layer of "
                f"{type(denoiser).__name__}; leave the field out for the preset's own"
            )
        if any(map(in_groups, matches)):
            raise InvalidInput(
                f"lora.target_modules: {target!r} names a convolution with groups, for which "
                "diffusers can't load a LoRA; leave it out"
            )


def _initialise(layer: LoraLayer, name: str, spec: pb.LoraSpec, generator: torch.Generator) -> None:
    lora_A, lora_B = layer.lora_A[name], layer.lora_B[name]
    # Drawn on the CPU, so that every device starts from the same weights.
    init = torch.empty(lora_A.weight.shape)
    if spec.init == pb.LORA_INIT_KAIMING:
        torch.nn.init.kaiming_uniform_(init, a=math.sqrt(5), generator=generator)
    else:
        torch.nn.init.normal_(init, std=1 / spec.rank, generator=generator)
    with torch.no_grad():
        lora_A.weight.copy_(init)
        lora_B.weight.zero_()


def _begin_with(
    start: Mapping[str, Lora],
    layers: Mapping[str, LoraLayer],
    name: str,
    spec: pb.LoraSpec,
    family: GeneratorFamily,
) -> None:
    """Puts ``start`` into the layers; its rows of A and columns of B come first."""
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
            fill(layers[module], name, lora, module, scale=_scale(spec))
        except InvalidInput as error:
            raise InvalidInput(f"lora.start: {error}") from error


def _scale(spec: pb.LoraSpec) -> float:
    return spec.weight * spec.alpha / spec.rank
