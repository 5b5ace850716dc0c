"""A LoRA as peft's folder draws what the diffusers file draws."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel

from services.generator.lora.adapter import LoraAdapter
from services.generator.lora.export import LORA_FILE, diffusers_file
from services.orchestrator.api import peft
from tests.generator.rows import ROWS, Row
from tests.generator.test_families import PROMPT, lora_spec

#: One of each kind of denoiser.
DENOISERS = ("sd-1.4", "flux-schnell", "flux2-klein", "z-image-turbo", "sana-1.6b")
each_denoiser = pytest.mark.parametrize(
    "row", [row for row in ROWS if row.preset in DENOISERS], ids=str
)


@pytest.fixture
def folder(row: Row, tmp_path: Path) -> Path:
    """A trained LoRA of the row's family, as diffusers' file and as peft's folder."""
    family = row.load()
    spec = lora_spec(row)
    adapter = LoraAdapter(family, "exported", spec, seed=0)
    generator = torch.Generator().manual_seed(0)
    for parameter in adapter.parameters:
        parameter.data += 0.02 * torch.randn(parameter.shape, generator=generator)
    file = diffusers_file(adapter.tensors(), family, rank=spec.rank, title=PROMPT)
    length = int.from_bytes(file[:8], "little")
    header = json.loads(file[8 : 8 + length])
    weights = peft.weights_header(header) + file[8 + length :]
    (tmp_path / LORA_FILE).write_bytes(file)
    (tmp_path / peft.WEIGHTS_FILE).write_bytes(weights)
    (tmp_path / peft.CONFIG_FILE).write_bytes(peft.config(header, "someone/base"))
    return tmp_path


@each_denoiser
def test_peft_and_diffusers_draw_the_same_from_its_folder(row: Row, folder: Path) -> None:
    pipeline = row.plain()
    denoiser = pipeline.components["unet" if hasattr(pipeline, "unet") else "transformer"]

    def drawn() -> torch.Tensor:
        return row.draw(pipeline, PROMPT, row.images[0], 5)

    base = drawn()
    pipeline.load_lora_weights(folder, weight_name=LORA_FILE)
    wanted = drawn()
    assert (wanted - base).abs().max() > 0.01
    pipeline.unload_lora_weights()

    prefix = "base_model.model"
    denoiser.load_lora_adapter(folder, weight_name=peft.WEIGHTS_FILE, prefix=prefix)
    assert (drawn() - wanted).abs().max() <= 0.5e-4
    pipeline.unload_lora_weights()
    assert (drawn() - base).abs().max() <= 0.5e-4

    adapted = PeftModel.from_pretrained(denoiser, folder)
    assert adapted.peft_config["default"].base_model_name_or_path == "someone/base"
    assert (drawn() - wanted).abs().max() <= 0.5e-4
