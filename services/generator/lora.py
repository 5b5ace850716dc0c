"""The LoRA of one job: attach, switch on and off, export.

Several jobs share one frozen denoiser. Outside ``LoraAdapter.active()`` no adapter takes part in
its forward pass: whoever runs the denoiser says which LoRA it means.
"""

from __future__ import annotations

import contextlib
import json
import math
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from peft import LoraConfig
from peft.tuners.lora import LoraLayer
from safetensors.torch import save

from dualprocess.v1 import generator_pb2 as pb
from services.common.errors import InvalidInput
from services.generator.families.base import GeneratorFamily
from services.generator.safetensors_header import canonical

_ADAPTABLE = (torch.nn.Linear, torch.nn.Conv2d)


class LoraAdapter:
    """A trainable LoRA on ``family.denoiser``, float32 over any base dtype.

    y = W x + s B(A(x)) with s = weight * alpha / rank (Hu et al., 2021). The same ``seed`` gives
    the same initial weights. Raises ``InvalidInput`` for target modules the denoiser lacks.
    """

    def __init__(self, family: GeneratorFamily, name: str, spec: pb.LoraSpec, seed: int) -> None:
        self._family = family
        self._name = name
        self._spec = spec
        self._layers = _attach(family.denoiser, name, spec)
        generator = torch.Generator("cpu").manual_seed(seed)
        for layer in self._layers.values():
            layer.set_scale(name, spec.weight)
            _initialise(layer, name, spec, generator)
        self.parameters: list[torch.nn.Parameter] = [
            matrix[name].weight
            for layer in self._layers.values()
            for matrix in (layer.lora_A, layer.lora_B)
        ]

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

    def export(self, *, title: str) -> bytes:
        """The LoRA as a safetensors file that diffusers and ComfyUI load at weight 1.0.

        The scale s is folded into ``lora_B`` and alpha equals rank, so every reader that knows
        alpha and every one that doesn't computes the same. The same weights give the same bytes.
        """
        scale = self._spec.weight * self._spec.alpha / self._spec.rank
        tensors: dict[str, torch.Tensor] = {}
        for module, layer in self._layers.items():
            key = f"{self._family.lora_prefix}.{module}"
            lora_A = layer.lora_A[self._name].weight.detach()
            lora_B = layer.lora_B[self._name].weight.detach()
            tensors[f"{key}.lora_A.weight"] = lora_A.cpu().contiguous()
            tensors[f"{key}.lora_B.weight"] = (lora_B * scale).cpu().contiguous()
        return canonical(save(tensors, metadata=self._metadata(title)))

    def _metadata(self, title: str) -> dict[str, str]:
        rank = self._spec.rank
        config = {
            f"{self._family.lora_prefix}.{key}": value
            for key, value in {
                "r": rank,
                "lora_alpha": rank,
                "target_modules": sorted(self._layers),
            }.items()
        }
        return {
            "format": "pt",
            "lora_adapter_metadata": json.dumps(config, sort_keys=True),
            "modelspec.architecture": f"{self._family.architecture}/lora",
            "modelspec.sai_model_spec": "1.0.0",
            "modelspec.title": title,
            "ss_network_alpha": str(rank),
            "ss_network_dim": str(rank),
        }

    def remove(self) -> None:
        """Takes the LoRA off the denoiser and frees it. Graphs in flight keep what they need."""
        self._family.denoiser.delete_adapters(self._name)
        silence(self._family.denoiser)
        self._layers.clear()
        self.parameters.clear()


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
    with several_adapters():
        denoiser.add_adapter(config, name)
    silence(denoiser)
    return {
        module_name: module
        for module_name, module in denoiser.named_modules()
        if isinstance(module, LoraLayer) and name in module.lora_A
    }


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
