"""FLUX.1: rectified flow over packed latents (Black Forest Labs; diffusers' ``FluxPipeline``)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from diffusers.pipelines.flux.pipeline_flux import calculate_shift
from einops import rearrange

from dualprocess.v1 import generator_pb2 as pb
from services.common.presets import GeneratorPreset
from services.common.to_device import to_device
from services.generator.families.base import Conditioning, Schedule
from services.generator.families.flow import FlowFamily
from services.generator.families.noise import drawn
from services.generator.memory.modulation import Aim, Modulation


class Flux(FlowFamily):
    """Latents are packed: [batch, (h w), (c 2 2)], h and w counted in patches of 2 × 2."""

    pipeline_class = "FluxPipeline"
    text_encoder_names = ("text_encoder", "text_encoder_2")
    architecture = "flux-1"
    # OneTrainer's, which ComfyUI maps to diffusers' modules.
    kohya_prefix = "lora_transformer"

    def __init__(self, pipeline: Any, preset: GeneratorPreset, device: torch.device) -> None:
        super().__init__(pipeline, preset, device)
        embedder = self.denoiser.time_text_embed
        self.modulation: Modulation = Modulation(self.denoiser, embedder, device)

    def _encode(self, prompt: str, negative_prompt: str | None) -> Conditioning:  # noqa: ARG002
        prompt_embeds, pooled_prompt_embeds, txt_ids = self.pipeline.encode_prompt(
            prompt,
            prompt,
            device=self.device,
            max_sequence_length=self.max_sequence_length,
        )
        return {
            "encoder_hidden_states": prompt_embeds,
            "pooled_projections": pooled_prompt_embeds,
            "txt_ids": txt_ids,
        }

    def noise(self, seeds: Sequence[int], image: pb.ImageSpec) -> torch.Tensor:
        height, width = self._patches(image)
        channels = self.denoiser.config.in_channels // 4
        noise_BCHW = drawn(seeds, (channels, 2 * height, 2 * width), self.dtype)
        packed = rearrange(noise_BCHW, "b c (h ph) (w pw) -> b (h w) (c ph pw)", ph=2, pw=2)
        return to_device(packed, self.device)

    def _schedule(self, image: pb.ImageSpec) -> Schedule:
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
            device=self.device, sigmas=np.linspace(1.0, 1.0 / steps, steps), mu=mu
        )
        return Schedule(image, scheduler.timesteps.clone(), scheduler.sigmas.clone())

    def denoise(
        self, latents: torch.Tensor, conditioning: Conditioning, schedule: Schedule, index: int
    ) -> torch.Tensor:
        batch = len(latents)
        pooled = conditioning["pooled_projections"].expand(batch, -1)
        self._aim(conditioning, schedule, index, batch)
        model_pred: torch.Tensor = self.denoiser(
            hidden_states=latents,
            timestep=self._time(schedule, index, batch) / 1000,
            guidance=self._guidance(schedule, batch),
            encoder_hidden_states=conditioning["encoder_hidden_states"].expand(batch, -1, -1),
            pooled_projections=pooled,
            txt_ids=conditioning["txt_ids"],
            img_ids=self._image_ids(schedule.image),
            return_dict=False,
        )[0]
        return model_pred

    def _time(self, schedule: Schedule, index: int, batch: int) -> torch.Tensor:
        return schedule.timesteps[index].expand(batch).to(self.dtype)

    def _guidance(self, schedule: Schedule, batch: int) -> torch.Tensor | None:
        if not self.denoiser.config.guidance_embeds:
            return None
        return torch.full((batch,), schedule.image.guidance_scale, device=self.device)

    def _aim(
        self, conditioning: Conditioning, schedule: Schedule, index: int, batch: int
    ) -> None:
        pooled = conditioning["pooled_projections"]

        def inputs(index: int) -> tuple[torch.Tensor, ...]:
            """What the denoiser gives its embedder."""
            time = self._time(schedule, index, batch) / 1000 * 1000
            guidance = self._guidance(schedule, batch)
            scale = () if guidance is None else (guidance.to(self.dtype) * 1000,)
            return time, *scale, pooled.expand(batch, -1)

        image = schedule.image
        size_and_scale = (image.width, image.height, image.guidance_scale)
        key = (len(schedule), *size_and_scale, batch)
        self.modulation.aim(Aim(pooled, key, index, lambda: map(inputs, range(len(schedule)))))

    def latent_map(self, x0: torch.Tensor, image: pb.ImageSpec) -> torch.Tensor:
        height, width = self._patches(image)
        return rearrange(
            x0, "b (h w) (c ph pw) -> b c (h ph) (w pw)", h=height, w=width, ph=2, pw=2
        )

    def decode(self, x0: torch.Tensor, image: pb.ImageSpec) -> torch.Tensor:
        config = self.vae.config
        normalised = self.latent_map(x0, image)
        return self.decoded(normalised / config.scaling_factor + config.shift_factor)

    def _patches(self, image: pb.ImageSpec) -> tuple[int, int]:
        side = self.pipeline.vae_scale_factor * 2
        return image.height // side, image.width // side

    def _image_ids(self, image: pb.ImageSpec) -> torch.Tensor:
        """Position (0, row, column) of every packed latent: [h w, 3]."""
        height, width = self._patches(image)
        ids = torch.zeros(height, width, 3, device=self.device, dtype=self.dtype)
        ids[..., 1] = torch.arange(height, device=self.device)[:, None]
        ids[..., 2] = torch.arange(width, device=self.device)[None, :]
        return ids.reshape(height * width, 3)
