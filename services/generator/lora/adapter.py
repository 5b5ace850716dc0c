"""The LoRA of one job: attach, switch on and off, read out.

Several jobs share one frozen denoiser. Outside ``LoraAdapter.active()`` no adapter takes part in
its forward pass: whoever runs the denoiser says which LoRA it means.
"""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

import torch
from peft import LoraConfig
from peft.tuners.lora import LoraLayer

from dualprocess.v1 import generator_pb2 as pb
from services.common.errors import InvalidInput
from services.generator.families.base import GeneratorFamily
from services.generator.lora.read import Lora

_ADAPTABLE = (torch.nn.Linear, torch.nn.Conv2d)


class LoraAdapter:
    """A trainable LoRA on ``family.denoiser``, float32 over any base dtype.

    y = W x + s B(A(x)) with s = weight * alpha / rank (Hu et al., 2021). The same ``seed`` gives
    the same initial weights. ``start`` is a LoRA to begin with: s B(A(x)) is its own effect, and
    what it lacks of rank and modules is initialised as without it. Raises ``InvalidInput`` for
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
        self._layers = _attach(family.denoiser, name, spec)
        generator = torch.Generator("cpu").manual_seed(seed)
        try:
            for layer in self._layers.values():
                layer.set_scale(name, spec.weight)
                _initialise(layer, name, spec, generator)
            _begin_with(start, self._layers, name, spec)
        except BaseException:
            _detach(family.denoiser, name)
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

        A backward pass belongs inside as well: gradients stop at parameters of idle adapters,
        and gradient checkpointing runs the forward pass again.
        """
        for layer in self._layers.values():
            layer.set_adapter([self._name])
        try:
            yield
        finally:
            silence(self._family.denoiser)

    def tensors(self) -> dict[str, torch.Tensor]:
        """The LoRA in the diffusers layout, on the CPU, the scale s folded into ``lora_B``."""
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
        """Takes the LoRA off the denoiser and frees it. Graphs in flight keep what they need."""
        _detach(self._family.denoiser, self._name)
        self._layers.clear()
        self.parameters.clear()
        self.named_parameters.clear()


def silence(denoiser: torch.nn.Module) -> None:
    """No adapter takes part in the forward pass."""
    for module in denoiser.modules():
        if isinstance(module, LoraLayer):
            module.set_adapter([])


@contextlib.contextmanager
def several_adapters() -> Iterator[None]:
    """One denoiser may get one more adapter: no reason for peft to warn."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Already found a `peft_config` attribute")
        yield


def _attach(denoiser: Any, name: str, spec: pb.LoraSpec) -> dict[str, LoraLayer]:
    """Adds an adapter; the adapted layers by their place in the denoiser."""
    _check_targets(denoiser, spec.target_modules)
    config = LoraConfig(
        r=spec.rank,
        lora_alpha=spec.alpha,
        target_modules=list(spec.target_modules),
        init_lora_weights=False,
    )
    try:
        with several_adapters():
            denoiser.add_adapter(config, name)
    except BaseException:
        _detach(denoiser, name)
        raise
    silence(denoiser)
    return {
        module_name: module
        for module_name, module in denoiser.named_modules()
        if isinstance(module, LoraLayer) and name in module.lora_A
    }


def _detach(denoiser: Any, name: str) -> None:
    """Takes the adapter off, also where it is on some layers only."""
    denoiser.delete_adapters(name)
    if not hasattr(denoiser, "peft_config"):
        # diffusers says that there are adapters before there is the first one.
        denoiser._hf_peft_config_loaded = False
    silence(denoiser)


def _check_targets(denoiser: torch.nn.Module, targets: Iterable[str]) -> None:
    """peft stops half-way at a layer it can't adapt: nothing may reach it unchecked."""
    layers = {
        name.removesuffix(".base_layer"): module
        for name, module in denoiser.named_modules()
        if ".lora_" not in name and not isinstance(module, LoraLayer)
    }
    for target in targets:
        matches = [
            layer for name, layer in layers.items() if name == target or name.endswith(f".{target}")
        ]
        if not matches or not all(isinstance(layer, _ADAPTABLE) for layer in matches):
            raise InvalidInput(
                f"lora.target_modules: {target!r} names no linear or convolution layer of "
                f"{type(denoiser).__name__}; leave the field out for the preset's own"
            )
        if any(getattr(layer, "groups", 1) > 1 for layer in matches):
            raise InvalidInput(
                f"lora.target_modules: {target!r} names a convolution in groups, which diffusers "
                "loads no LoRA of; leave it out"
            )


def _initialise(layer: LoraLayer, name: str, spec: pb.LoraSpec, generator: torch.Generator) -> None:
    lora_A, lora_B = layer.lora_A[name], layer.lora_B[name]
    # float32 whatever the base: in bfloat16 most updates at usual learning rates round to nothing.
    lora_A.to(torch.float32)
    lora_B.to(torch.float32)
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
    start: Mapping[str, Lora], layers: Mapping[str, LoraLayer], name: str, spec: pb.LoraSpec
) -> None:
    """The layers compute what ``start`` does; its rows of A and columns of B come first."""
    for module, lora in start.items():
        if module not in layers:
            raise InvalidInput(
                f"lora.start: it adapts {module}, which lora.target_modules doesn't name; "
                "add it there if this model has it"
            )
        if lora.rank > spec.rank:
            raise InvalidInput(
                f"lora.start: its rank is {lora.rank}; write lora.rank: {lora.rank} or more"
            )
        weights = (layers[module].lora_A[name].weight, layers[module].lora_B[name].weight)
        A, B = (_as_layer(matrix, weight) for matrix, weight in zip(lora, weights, strict=True))
        # Only the rank may be smaller.
        fits = A.shape[1:] == weights[0].shape[1:] and (
            (B.shape[0], *B.shape[2:]) == (weights[1].shape[0], *weights[1].shape[2:])
        )
        if not fits:
            raise InvalidInput(
                f"lora.start: its matrices of {module} don't fit that layer of this model"
            )
        with torch.no_grad():
            weights[0][: lora.rank].copy_(A)
            weights[1][:, : lora.rank].copy_(B / _scale(spec))


def _as_layer(matrix: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """A linear layer and a convolution of 1 × 1 are one; files may have either."""
    if matrix.ndim > weight.ndim:
        return matrix.reshape(matrix.shape[:2]) if matrix.shape[2:].numel() == 1 else matrix
    return matrix.reshape(*matrix.shape, *[1] * (weight.ndim - matrix.ndim))


def _scale(spec: pb.LoraSpec) -> float:
    return spec.weight * spec.alpha / spec.rank
