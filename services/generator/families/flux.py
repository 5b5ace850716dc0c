"""FLUX.1: rectified flow over packed latents (Black Forest Labs; diffusers' ``FluxPipeline``)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import torch
from diffusers import FluxPipeline
from diffusers.pipelines.flux.pipeline_flux import calculate_shift
from einops import rearrange

from dualprocess.v1 import generator_pb2 as pb
from services.common.presets import GeneratorPreset
from services.common.torch_tensors import DTYPES_BY_NAME
from services.generator.families.base import Conditioning, Schedule
from services.generator.families.flow import FlowFamily
from services.generator.families.noise import drawn
from services.generator.families.text_encoders import on_device


class Flux(FlowFamily):
    """Latents are packed: [batch, (h w), (c 2 2)], h and w counted in patches of 2 × 2."""

    lora_prefix = "transformer"
    architecture = "flux-1"

    def __init__(self, pipeline: Any, preset: GeneratorPreset, device: torch.device) -> None:
        self.pipeline = pipeline
        self.denoiser = pipeline.transformer
        self._vae = pipeline.vae
        self._text_encoders = (pipeline.text_encoder, pipeline.text_encoder_2)
        self._max_sequence_length = preset.max_sequence_length
        self._device = device
        self._dtype = DTYPES_BY_NAME[preset.dtype]
        for module in (self.denoiser, self._vae, *self._text_encoders):
            module.requires_grad_(False).eval()
        self.denoiser.to(device)
        self._vae.to(device)

    @classmethod
    def load(cls, preset: GeneratorPreset, device: torch.device) -> Self:
        pipeline = FluxPipeline.from_pretrained(
            preset.model, revision=preset.revision, dtype=DTYPES_BY_NAME[preset.dtype]
        )
        return cls(pipeline, preset, device)

    @torch.no_grad()
    def _encode(self, prompt: str, negative_prompt: str | None) -> Conditioning:  # noqa: ARG002
        with on_device(self._text_encoders, self._device):
            prompt_embeds, pooled_prompt_embeds, txt_ids = self.pipeline.encode_prompt(
                prompt,
                prompt,
                device=self._device,
                max_sequence_length=self._max_sequence_length,
            )
        return {
            "encoder_hidden_states": prompt_embeds,
            "pooled_projections": pooled_prompt_embeds,
            "txt_ids": txt_ids,
        }

    def noise(self, seeds: Sequence[int], image: pb.ImageSpec) -> torch.Tensor:
        height, width = self._patches(image)
        channels = self.denoiser.config.in_channels // 4
        noise_BCHW = drawn(seeds, (channels, 2 * height, 2 * width), self._dtype)
        packed = rearrange(noise_BCHW, "b c (h ph) (w pw) -> b (h w) (c ph pw)", ph=2, pw=2)
        return packed.to(self._device)

    def schedule(self, image: pb.ImageSpec) -> Schedule:
        scheduler = self.pipeline.scheduler
        config = scheduler.config
        height, width = self._patches(image)
        # Resolution-dependent shift, where the model's scheduler asks for one (flux-dev).
        mu = calculate_shift(
            height * width,
            config.get("base_image_seq_len", 256),
            config.get("max_image_seq_len", 4096),
            config.get("base_shift", 0.5),
            config.get("max_shift", 1.15),
        )
        steps = image.num_inference_steps
        scheduler.set_timesteps(
            device=self._device, sigmas=np.linspace(1.0, 1.0 / steps, steps), mu=mu
        )
        return Schedule(image, scheduler.timesteps.clone(), scheduler.sigmas.clone())

    def denoise(
        self, latents: torch.Tensor, conditioning: Conditioning, schedule: Schedule, index: int
    ) -> torch.Tensor:
        batch = len(latents)
        guidance = None
        if self.denoiser.config.guidance_embeds:
            guidance = torch.full((batch,), schedule.image.guidance_scale, device=self._device)
        timestep = schedule.timesteps[index].expand(batch).to(latents.dtype) / 1000
        model_pred: torch.Tensor = self.denoiser(
            hidden_states=latents,
            timestep=timestep,
            guidance=guidance,
            encoder_hidden_states=conditioning["encoder_hidden_states"].expand(batch, -1, -1),
            pooled_projections=conditioning["pooled_projections"].expand(batch, -1),
            txt_ids=conditioning["txt_ids"],
            img_ids=self._image_ids(schedule.image),
            return_dict=False,
        )[0]
        return model_pred

    def decode(self, x0: torch.Tensor, image: pb.ImageSpec) -> torch.Tensor:
        height, width = self._patches(image)
        latents_BCHW = rearrange(
            x0, "b (h w) (c ph pw) -> b c (h ph) (w pw)", h=height, w=width, ph=2, pw=2
        )
        config = self._vae.config
        latents_BCHW = latents_BCHW / config.scaling_factor + config.shift_factor
        images: torch.Tensor = self._vae.decode(latents_BCHW, return_dict=False)[0]
        # As it travels: memory layout decides how a convolution rounds, here and at the VLM.
        return images.contiguous()

    def _patches(self, image: pb.ImageSpec) -> tuple[int, int]:
        side = self.pipeline.vae_scale_factor * 2
        return image.height // side, image.width // side

    def _image_ids(self, image: pb.ImageSpec) -> torch.Tensor:
        """Position (0, row, column) of every packed latent: [h w, 3]."""
        height, width = self._patches(image)
        ids = torch.zeros(height, width, 3, device=self._device, dtype=self._dtype)
        ids[..., 1] = torch.arange(height, device=self._device)[:, None]
        ids[..., 2] = torch.arange(width, device=self._device)[None, :]
        return ids.reshape(height * width, 3)
