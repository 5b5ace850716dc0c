"""The families of VLMs, one row for each; all tests run for all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from services.common.presets import VlmPreset, load_presets
from services.vlm import registry
from services.vlm.families.base import VlmFamily
from tests.temporary import temporary_folder
from tests.vlm.tiny import qwen3_vl, smolvlm2

PARITY = Path(__file__).parents[1] / "fixtures" / "parity"

#: What the whole model takes beside ids and mask, by transformers' own names, for one picture.
Inputs = Callable[[VlmFamily, Image.Image, torch.Tensor], Mapping[str, Any]]


@dataclass(frozen=True, eq=False)
class Row:
    """A preset on a tiny random model in the hub's layout.

    ``inputs`` makes a plain call's arguments without our code. Leaving out one of ``needed``
    changes the loss. ``build`` writes the tiny model; without it the model lies in the fixtures.
    """

    preset: str
    inputs: Inputs
    needed: tuple[str, ...] = ()
    build: Callable[[Path], None] | None = None

    def __str__(self) -> str:
        return self.preset

    @property
    def tiny(self) -> VlmPreset:
        """The real preset, on the tiny model, in float32."""
        preset = load_presets().vlm(self.preset)
        return preset.model_copy(update={"model": str(folder(self)), "dtype": "float32"})

    def load(self) -> VlmFamily:
        return registry.load(self.tiny, torch.device("cpu"))


@cache
def folder(row: Row) -> Path:
    if row.build is None:
        return PARITY / "models" / row.preset
    path = temporary_folder(f"{row.preset}-")
    row.build(path)
    return path


def _processed(vlm: VlmFamily, picture: Image.Image, **options: bool) -> Mapping[str, Any]:
    batch = vlm.image_processor(picture, return_tensors="pt", **options)
    return {name: value for name, value in batch.items() if isinstance(value, torch.Tensor)}


def _whole(vlm: VlmFamily, picture: Image.Image, ids: torch.Tensor) -> Mapping[str, Any]:
    return _processed(vlm, picture, do_image_splitting=False)


def _plain(vlm: VlmFamily, picture: Image.Image, ids: torch.Tensor) -> Mapping[str, Any]:
    return _processed(vlm, picture)


def _gemma3(vlm: VlmFamily, picture: Image.Image, ids: torch.Tensor) -> Mapping[str, Any]:
    image = vlm.tokenizer.convert_tokens_to_ids("<image_soft_token>")
    pixel_values = _processed(vlm, picture, do_pan_and_scan=False)["pixel_values"]
    return {"pixel_values": pixel_values, "token_type_ids": (ids == image).int()}


def _qwen(vlm: VlmFamily, picture: Image.Image, ids: torch.Tensor) -> Mapping[str, Any]:
    image = vlm.tokenizer.convert_tokens_to_ids("<|image_pad|>")
    return {**_processed(vlm, picture), "mm_token_type_ids": (ids == image).int()}


def _build_qwen3(folder: Path) -> None:
    qwen3_vl.build(folder, PARITY / "models" / "qwen2.5-vl")


ROWS = (
    Row("idefics2", _whole),
    Row("gemma3", _gemma3, needed=("token_type_ids",)),
    Row("llava-1.5", _plain),
    Row("pixtral", _plain),
    Row("smolvlm2", _whole, build=smolvlm2.build),
    Row("qwen2.5-vl", _qwen, needed=("mm_token_type_ids",)),
    Row("qwen3-vl", _qwen, needed=("mm_token_type_ids",), build=_build_qwen3),
)
