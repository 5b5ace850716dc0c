"""FLUX.2 [klein], step-wise distilled: rectified flow over packed latents (Black Forest Labs;
diffusers' ``Flux2KleinPipeline``)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import torch
from diffusers.pipelines.flux2.pipeline_flux2_klein import compute_empirical_mu
from einops import rearrange

from dualprocess.v1 import generator_pb2 as pb
from services.common.presets import GeneratorPreset, PresetError
from services.common.reading import TEXT_ENCODERS, Reader
from services.common.to_device import to_device
from services.generator.families.base import Conditioning, Schedule
from services.generator.families.chat import chat_frame
from services.generator.families.flow import FlowFamily
from services.generator.families.noise import drawn


class Flux2(FlowFamily):
    """Latents are packed: [batch, (h w), (c 2 2)], h and w counted in patches of 2 × 2."""

    pipeline_class = "Flux2KleinPipeline"
    architecture = "flux-2"

    def __init__(self, pipeline: Any, preset: GeneratorPreset, device: torch.device) -> None:
        # Only hidden states are used, not what the encoder would say next.
        pipeline.text_encoder.lm_head = torch.nn.Identity()
        super().__init__(pipeline, preset, device)

    @classmethod
    def load(cls, preset: GeneratorPreset, device: torch.device) -> Self:
        """Raises ``PresetError`` for the undistilled models: they need guidance."""
        family = super().load(preset, device)
        if not family.pipeline.config.is_distilled:
            raise PresetError(
                f"preset {preset.name}: {preset.model} is not distilled: choose FLUX.2-klein-4B"
            )
        return family

    def _encode(self, prompt: str, negative_prompt: str | None) -> Conditioning:  # noqa: ARG002
        prompt_embeds, txt_ids = self.pipeline.encode_prompt(
            prompt, device=self.device, max_sequence_length=self.max_sequence_length
        )
        return {"encoder_hidden_states": prompt_embeds, "txt_ids": txt_ids}

    def readers(self, *, negative: bool) -> list[Reader]:  # noqa: ARG002
        (encoder,) = TEXT_ENCODERS[self.preset.family]
        frame = chat_frame(self.pipeline.tokenizer, enable_thinking=False)
        return [self._reader(encoder, self.max_sequence_length, frame)]

    def noise(self, seeds: Sequence[int], image: pb.ImageSpec) -> torch.Tensor:
        noise_BCHW = drawn(
            seeds, (self.denoiser.config.in_channels, *self._patches(image)), self.dtype
        )
        return to_device(rearrange(noise_BCHW, "b c h w -> b (h w) c"), self.device)

    def _schedule(self, image: pb.ImageSpec) -> Schedule:
        scheduler = self.pipeline.scheduler
        height, width = self._patches(image)
        steps = image.num_inference_steps
        # The pipeline's shift depends on the resolution and on the number of steps.
        scheduler.set_timesteps(
            device=self.device,
            sigmas=np.linspace(1.0, 1.0 / steps, steps),
            mu=compute_empirical_mu(height * width, steps),
        )
        return Schedule(image, scheduler.timesteps.clone(), scheduler.sigmas.clone())

    def denoise(
        self, latents: torch.Tensor, conditioning: Conditioning, schedule: Schedule, index: int
    ) -> torch.Tensor:
        batch = len(latents)
        timestep = schedule.timesteps[index].expand(batch).to(latents.dtype) / 1000
        model_pred: torch.Tensor = self.denoiser(
            hidden_states=latents,
            timestep=timestep,
            guidance=None,
            encoder_hidden_states=conditioning["encoder_hidden_states"].expand(batch, -1, -1),
            txt_ids=conditioning["txt_ids"],
            img_ids=self._image_ids(schedule.image),
            return_dict=False,
        )[0]
        return model_pred

    def latent_map(self, x0: torch.Tensor, image: pb.ImageSpec) -> torch.Tensor:
        """By patches, which is what the batch norm whitens."""
        height, width = self._patches(image)
        return rearrange(x0, "b (h w) c -> b c h w", h=height, w=width)

    def decode(self, x0: torch.Tensor, image: pb.ImageSpec) -> torch.Tensor:
        height, width = self._patches(image)
        # The denoiser's latents are whitened by the running statistics of the VAE's batch norm.
        mean = self.vae.bn.running_mean.to(x0.dtype)
        variance = self.vae.bn.running_var + self.vae.config.batch_norm_eps
        latents_BCHW = rearrange(
            x0 * variance.sqrt().to(x0.dtype) + mean,
            "b (h w) (c ph pw) -> b c (h ph) (w pw)",
            h=height,
            w=width,
            ph=2,
            pw=2,
        )
        return self.decoded(latents_BCHW)

    def _patches(self, image: pb.ImageSpec) -> tuple[int, int]:
        side = self.pipeline.vae_scale_factor * 2
        return image.height // side, image.width // side

    def _image_ids(self, image: pb.ImageSpec) -> torch.Tensor:
        """Position (0, row, column, 0) of every packed latent: [h w, 4]."""
        height, width = self._patches(image)
        rows = torch.arange(height, device=self.device)
        columns = torch.arange(width, device=self.device)
        zero = torch.zeros(1, dtype=rows.dtype, device=self.device)
        return torch.cartesian_prod(zero, rows, columns, zero)
