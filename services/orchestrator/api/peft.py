"""A LoRA as peft's folder, ``adapter_config.json`` and ``adapter_model.safetensors``, made from the
header of the diffusers file: only the names of the tensors differ, their bytes are the same."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import Any

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"

#: What peft puts before the name of a module.
_PREFIX = "base_model.model"
_A = ".lora_A.weight"

#: A safetensors header: tensors by name, and ``__metadata__``.
Header = Mapping[str, Any]


def config(header: Header, base_model: str | None) -> bytes:
    """``adapter_config.json`` for the file with this header. Its scale is in its matrices, so alpha
    equals rank."""
    modules = {
        _renamed(name).removesuffix(_A).removeprefix(f"{_PREFIX}."): described["shape"][0]
        for name, described in header.items()
        if name.endswith(_A)
    }
    rank = max(modules.values(), default=0)
    others = {module: own for module, own in sorted(modules.items()) if own != rank}
    described = {
        "alpha_pattern": others,
        "base_model_name_or_path": base_model,
        "bias": "none",
        "inference_mode": True,
        "lora_alpha": rank,
        "lora_dropout": 0.0,
        "peft_type": "LORA",
        "r": rank,
        "rank_pattern": others,
        "target_modules": sorted(modules),
        "task_type": None,
        "use_dora": False,
        "use_rslora": False,
    }
    return json.dumps(described, indent=2).encode()


def weights_header(header: Header) -> bytes:
    """The beginning of ``adapter_model.safetensors``, up to the tensors' bytes. They begin at a
    multiple of 8, as in the file that the header is from."""
    renamed = {
        _renamed(name): described for name, described in header.items() if name != "__metadata__"
    }
    # Without diffusers' own metadata, whose names are those of the other file.
    text = json.dumps({"__metadata__": {"format": "pt"}, **renamed}, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def _renamed(name: str) -> str:
    """Without ``transformer`` or ``unet``, the denoiser's name in the pipeline."""
    return f"{_PREFIX}.{name.partition('.')[2]}"
