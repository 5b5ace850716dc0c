"""Makes checkpoints of the exported pair, so that training can continue from the shipped weights.

`python -m models.training.restore`. The optimiser's state begins anew, and so does the VLM's
attribute head, which is not exported. Existing checkpoints stay as they are.
"""

from __future__ import annotations

from typing import Any

from diffusers import AutoencoderKL, FluxTransformer2DModel
from torch import nn
from transformers import CLIPTextModel, Idefics2ForConditionalGeneration, T5EncoderModel

from models.training import checkpoint
from models.training.export import FLUX, IDEFICS2
from models.training.train_flux import Denoiser
from models.training.train_idefics2 import AttributeHead


def vae() -> nn.Module:
    model: nn.Module = AutoencoderKL.from_pretrained(FLUX, subfolder="vae")
    return model


def flux() -> nn.Module:
    denoiser = Denoiser()
    parts: dict[str, Any] = {
        "transformer": FluxTransformer2DModel,
        "text_encoder": CLIPTextModel,
        "text_encoder_2": T5EncoderModel,
    }
    for name, kind in parts.items():
        trained = kind.from_pretrained(FLUX, subfolder=name)
        getattr(denoiser, name).load_state_dict(trained.state_dict())
    return denoiser


def idefics2() -> nn.Module:
    model: Any = Idefics2ForConditionalGeneration.from_pretrained(IDEFICS2)
    return nn.ModuleList([model, AttributeHead()])


def main() -> None:
    for make in (vae, flux, idefics2):
        name = make.__name__
        if checkpoint.load(name) is None:
            state = {"model": make().state_dict(), "step": 0, "spent": 0.0}
            checkpoint.save(name, state)
            print(f"{name}: restored from the exported weights")


if __name__ == "__main__":
    main()
