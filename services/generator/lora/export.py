"""A LoRA as the files that other tools load. The same weights give the same bytes."""

from __future__ import annotations

import json

from safetensors.torch import save

from services.generator.families.base import GeneratorFamily
from services.generator.lora.kohya import Tensors, to_kohya
from services.generator.lora.safetensors_header import canonical

LORA_FILE = "pytorch_lora_weights.safetensors"
KOHYA_FILE = "pytorch_lora_weights_kohya.safetensors"


def diffusers_file(tensors: Tensors, family: GeneratorFamily, *, rank: int, title: str) -> bytes:
    """What diffusers, and ComfyUI for transformers, load at weight 1.0.

    ``tensors`` has the diffusers layout's keys, its scale folded into ``lora_B``. alpha equals
    rank, so every reader that knows alpha and every one that doesn't computes the same.
    """
    prefix = family.lora_prefix
    modules = {key.removeprefix(f"{prefix}.").rpartition(".lora_")[0] for key in tensors}
    config = {
        f"{prefix}.r": rank,
        f"{prefix}.lora_alpha": rank,
        f"{prefix}.target_modules": sorted(modules),
    }
    metadata = {"lora_adapter_metadata": json.dumps(config, sort_keys=True)}
    metadata |= _metadata(family, rank, title)
    return canonical(save(dict(tensors), metadata=metadata))


def kohya_file(tensors: Tensors, family: GeneratorFamily, *, rank: int, title: str) -> bytes | None:
    """The same with names like kohya's, which ComfyUI reads, if every layer has such a name."""
    if family.kohya_prefix is None:
        return None
    converted = to_kohya(tensors, family.lora_prefix, family.kohya_prefix)
    if converted is None:
        return None
    metadata = {"ss_network_module": "networks.lora"} | _metadata(family, rank, title)
    return canonical(save(converted, metadata=metadata))


def _metadata(family: GeneratorFamily, rank: int, title: str) -> dict[str, str]:
    """The metadata that tools show of a file."""
    return {
        "format": "pt",
        "modelspec.architecture": f"{family.architecture}/lora",
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.title": title,
        "ss_network_alpha": str(rank),
        "ss_network_dim": str(rank),
    }
