"""Z-Image: rectified flow over a single stream of image and text tokens (Tongyi-MAI; diffusers'
``ZImagePipeline``)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import torch
from diffusers import ZImagePipeline
from diffusers.pipelines.z_image.pipeline_z_image import (
    calculate_shift,
    get_default_z_image_sigmas,
)

from dualprocess.v1 import generator_pb2 as pb
from services.common.presets import GeneratorPreset
from services.common.torch_tensors import DTYPES_BY_NAME
from services.generator.families.base import Conditioning, Schedule
from services.generator.families.flow import FlowFamily
from services.generator.families.noise import drawn
from services.generator.families.text_encoders import on_device


class ZImage(FlowFamily):
    """Latents are [batch, channels, height, width], float32 over any dtype of the denoiser."""

    lora_prefix = "transformer"
    architecture = "z-image"
    classifier_free = True

    def __init__(self, pipeline: Any, preset: GeneratorPreset, device: torch.device) -> None:
        self.pipeline = pipeline
        self.denoiser = pipeline.transformer
        self._vae = pipeline.vae
        self._max_sequence_length = preset.max_sequence_length
        self._device = device
        self._dtype = DTYPES_BY_NAME[preset.dtype]
        for module in (self.denoiser, self._vae, pipeline.text_encoder):
            module.requires_grad_(False).eval()
        self.denoiser.to(device)
        self._vae.to(device)

    @classmethod
    def load(cls, preset: GeneratorPreset, device: torch.device) -> Self:
        pipeline = ZImagePipeline.from_pretrained(
            preset.model, revision=preset.revision, dtype=DTYPES_BY_NAME[preset.dtype]
        )
        return cls(pipeline, preset, device)

    def guided(self, image: pb.ImageSpec) -> bool:
        """From any scale above 0: the pipeline counts it from the conditional prediction."""
        return image.guidance_scale > 0

    @torch.no_grad()
    def _encode(self, prompt: str, negative_prompt: str | None) -> Conditioning:
        """``cap_feats`` [tokens, dim]: prompts aren't padded, so each has its own length."""
        with on_device((self.pipeline.text_encoder,), self._device):
            prompt_embeds, negative_prompt_embeds = self.pipeline.encode_prompt(
                prompt,
                device=self._device,
                do_classifier_free_guidance=negative_prompt is not None,
                negative_prompt=negative_prompt,
                max_sequence_length=self._max_sequence_length,
            )
        conditioning = {"cap_feats": prompt_embeds[0]}
        if negative_prompt is not None:
            conditioning["negative_cap_feats"] = negative_prompt_embeds[0]
        return conditioning

    def noise(self, seeds: Sequence[int], image: pb.ImageSpec) -> torch.Tensor:
        shape = (self.denoiser.config.in_channels, *self._latent_sides(image))
        return drawn(seeds, shape, torch.float32).to(self._device)

    def schedule(self, image: pb.ImageSpec) -> Schedule:
        scheduler = self.pipeline.scheduler
        config = scheduler.config
        height, width = self._latent_sides(image)
        mu = calculate_shift(
            (height // 2) * (width // 2),
            config.get("base_image_seq_len", 256),
            config.get("max_image_seq_len", 4096),
            config.get("base_shift", 0.5),
            config.get("max_shift", 1.15),
        )
        scheduler.set_timesteps(
            device=self._device, sigmas=get_default_z_image_sigmas(image.num_inference_steps), mu=mu
        )
        return Schedule(image, scheduler.timesteps.clone(), scheduler.sigmas.clone())

    def denoise(
        self, latents: torch.Tensor, conditioning: Conditioning, schedule: Schedule, index: int
    ) -> torch.Tensor:
        """v = noise - x0, float32."""
        if not self.guided(schedule.image):
            return self._velocity(latents, [conditioning["cap_feats"]], schedule, index)
        captions = [conditioning["cap_feats"], conditioning["negative_cap_feats"]]
        positive, negative = self._velocity(latents, captions, schedule, index).chunk(2)
        return positive + schedule.image.guidance_scale * (positive - negative)

    def _velocity(
        self,
        latents: torch.Tensor,
        captions: Sequence[torch.Tensor],
        schedule: Schedule,
        index: int,
    ) -> torch.Tensor:
        """One prediction for each caption and row of latents: [(captions batch), c, h, w]."""
        frames_BCFHW = latents.to(self._dtype).repeat(len(captions), 1, 1, 1).unsqueeze(2)
        # The denoiser's time runs from 0, noise, to 1, image, and so does its prediction.
        time = ((1000 - schedule.timesteps[index]) / 1000).expand(len(frames_BCFHW))
        predictions = self.denoiser(
            list(frames_BCFHW.unbind()),
            time,
            [caption for caption in captions for _ in range(len(latents))],
            return_dict=False,
        )[0]
        return -torch.stack([prediction.float() for prediction in predictions]).squeeze(2)

    def decode(self, x0: torch.Tensor, image: pb.ImageSpec) -> torch.Tensor:  # noqa: ARG002
        config = self._vae.config
        latents = x0.to(self._dtype) / config.scaling_factor + config.shift_factor
        images: torch.Tensor = self._vae.decode(latents, return_dict=False)[0]
        # As it travels: memory layout decides how a convolution rounds, here and at the VLM.
        return images.contiguous()

    def _latent_sides(self, image: pb.ImageSpec) -> tuple[int, int]:
        side = self.pipeline.vae_scale_factor * 2
        return 2 * (image.height // side), 2 * (image.width // side)
