"""Z-Image: rectified flow over a single stream of image and text tokens (Tongyi-MAI; diffusers'
``ZImagePipeline``)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from diffusers.pipelines.z_image.pipeline_z_image import (
    calculate_shift,
    get_default_z_image_sigmas,
)

from dualprocess.v1 import generator_pb2 as pb
from services.common.reading import TEXT_ENCODERS, Reader
from services.common.to_device import to_device
from services.generator.families.base import Conditioning, Schedule
from services.generator.families.chat import chat_frame
from services.generator.families.flow import FlowFamily
from services.generator.families.noise import drawn


class ZImage(FlowFamily):
    """Latents are [batch, channels, height, width], float32 over any dtype of the denoiser."""

    pipeline_class = "ZImagePipeline"
    architecture = "z-image"
    classifier_free = True

    def guided(self, image: pb.ImageSpec) -> bool:
        """Guidance is on at any scale above 0, since the pipeline adds it to the conditional
        prediction."""
        return image.guidance_scale > 0

    def _encode(self, prompt: str, negative_prompt: str | None) -> Conditioning:
        """``cap_feats`` [tokens, dim]: prompts aren't padded, so each has its own length."""
        prompt_embeds, negative_prompt_embeds = self.pipeline.encode_prompt(
            prompt,
            device=self.device,
            do_classifier_free_guidance=negative_prompt is not None,
            negative_prompt=negative_prompt,
            max_sequence_length=self.max_sequence_length,
        )
        conditioning = {"cap_feats": prompt_embeds[0]}
        if negative_prompt is not None:
            conditioning["negative_cap_feats"] = negative_prompt_embeds[0]
        return conditioning

    def readers(self, *, negative: bool) -> list[Reader]:  # noqa: ARG002
        (encoder,) = TEXT_ENCODERS[self.preset.family]
        frame = chat_frame(self.pipeline.tokenizer, enable_thinking=True)
        return [self._reader(encoder, self.max_sequence_length, frame)]

    def noise(self, seeds: Sequence[int], image: pb.ImageSpec) -> torch.Tensor:
        shape = (self.denoiser.config.in_channels, *self._latent_sides(image))
        return to_device(drawn(seeds, shape, torch.float32), self.device)

    def _schedule(self, image: pb.ImageSpec) -> Schedule:
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
            device=self.device, sigmas=get_default_z_image_sigmas(image.num_inference_steps), mu=mu
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
        frames_BCFHW = latents.to(self.dtype).repeat(len(captions), 1, 1, 1).unsqueeze(2)
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
        config = self.vae.config
        latents = x0.to(self.dtype) / config.scaling_factor + config.shift_factor
        return self.decoded(latents)

    def _latent_sides(self, image: pb.ImageSpec) -> tuple[int, int]:
        side = self.pipeline.vae_scale_factor * 2
        return 2 * (image.height // side), 2 * (image.width // side)
