"""Which files are accepted, for the documentation; ``tests/generator/test_layouts.py`` tries each
row with each family."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Outcome = Literal["taken", "taken in part", "refused"]

UNETS = ("stable_diffusion", "sdxl")
TRANSFORMERS = ("flux", "flux2", "z_image", "sana", "sana_sprint")
EVERY = (*UNETS, *TRANSFORMERS)


@dataclass(frozen=True)
class Row:
    """A layout by its name, a tensor's name in it, and the families that have it."""

    layout: str
    example: str
    families: tuple[str, ...]
    outcome: Outcome = "taken"


ROWS = (
    Row("diffusers", "transformer.….lora_A.weight, unet.….lora_B.weight", EVERY),
    Row(
        "diffusers, before peft", "unet.….processor.to_q_lora.down.weight, ….lora.up.weight", EVERY
    ),
    Row("bare names", "transformer_blocks.0.attn.to_q.lora_A.weight", EVERY),
    Row("peft's folders", "base_model.model.….lora_A.weight", EVERY),
    Row("a named adapter", "….lora_A.default.weight", EVERY),
    Row(
        "kohya's sd-scripts",
        "lora_unet_….lora_down.weight, ….alpha",
        (*UNETS, "flux", "flux2", "z_image"),
    ),
    Row("kohya's names for SDXL", "lora_unet_input_blocks_4_1_….lora_down.weight", UNETS),
    Row("OneTrainer", "lora_transformer_….lora_down.weight", TRANSFORMERS),
    Row(
        "ai-toolkit, ComfyUI",
        "diffusion_model.….lora_A.weight",
        (*UNETS, "flux", "flux2", "z_image"),
    ),
    Row("XLabs", "double_blocks.0.processor.qkv_lora1.down.weight", ("flux",)),
    Row(
        "with text encoders",
        "lora_te1_….lora_down.weight, text_encoder.….lora_A.weight",
        EVERY,
        "taken in part",
    ),
    Row(
        "with layers that the model lacks",
        "lora_unet_guidance_in_in_layer.… for a model without guidance",
        EVERY,
        "taken in part",
    ),
    Row("DoRA", "….dora_scale, ….lora_magnitude_vector", EVERY, "refused"),
    Row("LoHa", "….hada_w1_a", EVERY, "refused"),
    Row("LoKr", "….lokr_w1", EVERY, "refused"),
    Row("biases", "….lora_B.bias, ….diff_b", EVERY, "refused"),
)
