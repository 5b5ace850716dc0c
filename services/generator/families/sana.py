"""Sana: rectified flow over the 32-fold compressed latents of a deep-compression autoencoder
(Xie et al., 2024, arXiv 2410.10629; diffusers' ``SanaPipeline``)."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from diffusers import DPMSolverMultistepScheduler, FlowMatchEulerDiscreteScheduler

from dualprocess.v1 import generator_pb2 as pb
from services.common.presets import GeneratorPreset
from services.common.reading import TEXT_ENCODERS, Framed, Reader, between
from services.common.to_device import to_device
from services.generator.families.base import Conditioning, GeneratorFamily, Schedule
from services.generator.families.flow import FlowFamily
from services.generator.families.noise import drawn
from services.generator.families.sampler_settings import check_class, check_unknown, refusal

_SAMPLERS = [DPMSolverMultistepScheduler.__name__, FlowMatchEulerDiscreteScheduler.__name__]


class SanaModel(GeneratorFamily):
    """What Sana and its distilled variants share: everything but the sampling.

    Latents are float32 whatever the model's dtype, as the pipelines keep them.
    """

    def __init__(self, pipeline: Any, preset: GeneratorPreset, device: torch.device) -> None:
        super().__init__(pipeline, preset, device)
        call = inspect.signature(type(pipeline).__call__)
        # The text in front of every prompt; the pipelines have it as the default of a call.
        self._instruction: list[str] = call.parameters["complex_human_instruction"].default
        self._prompt_settings = {
            "device": device,
            "max_sequence_length": preset.max_sequence_length,
            "complex_human_instruction": self._instruction,
        }

    def readers(self, *, negative: bool) -> list[Reader]:
        (encoder,) = TEXT_ENCODERS[self.preset.family]
        most = self.max_sequence_length
        instruction = "" if negative else "\n".join(self._instruction)
        if instruction:
            # Counted as the pipelines do: two tokens of the instruction leave two fewer for the
            # prompt.
            most += len(self.pipeline.tokenizer.encode(instruction)) - 2

        def frame(prompt: str) -> Framed:
            framed = between(prompt.lower().strip(), instruction)
            return Framed(framed.text, _before_lowering(prompt, framed.places))

        return [self._reader(encoder, most, frame)]

    def latent_shape(self, image: pb.ImageSpec) -> tuple[int, int, int]:
        """Channels, height and width of one image's latents."""
        side = self.pipeline.vae_scale_factor
        return self.denoiser.config.in_channels, image.height // side, image.width // side

    def decode(self, x0: torch.Tensor, image: pb.ImageSpec) -> torch.Tensor:  # noqa: ARG002
        latents_BCHW = x0.to(self.dtype) / self.vae.config.scaling_factor
        return self.decoded(latents_BCHW)


class Sana(SanaModel, FlowFamily):
    """Latents are [batch, channels, height, width].

    A conditioning with guidance has two rows: negative prompt, prompt.
    """

    pipeline_class = "SanaPipeline"
    architecture = "sana-1"
    classifier_free = True
    unread_settings = ("use_flow_sigmas",)

    def __init__(self, pipeline: Any, preset: GeneratorPreset, device: torch.device) -> None:
        # The hub's own sampler is a DPM solver, whose steps depend on earlier predictions, so one
        # prediction alone would not determine the next latents. Its shift belongs to the model and
        # is kept.
        own = pipeline.scheduler
        check_class(preset, own, _SAMPLERS)
        config = own.config
        if config.get("use_dynamic_shifting"):
            raise refusal(
                preset,
                "use_dynamic_shifting",
                True,
                "and the pipeline has no such shift for an image",
            )
        if isinstance(own, DPMSolverMultistepScheduler):
            check_unknown(
                preset, config, FlowMatchEulerDiscreteScheduler, known=self.unread_settings
            )
            if config.prediction_type != "flow_prediction" or not config.use_flow_sigmas:
                setting = f"{config.prediction_type!r}, use_flow_sigmas {config.use_flow_sigmas!r}"
                raise refusal(
                    preset,
                    "prediction_type",
                    setting,
                    "and Sana predicts a flow",
                    'write "flow_prediction" and true, or choose another model',
                )
            pipeline.scheduler = FlowMatchEulerDiscreteScheduler.from_config(
                config, shift=config.flow_shift
            )
        super().__init__(pipeline, preset, device)

    def _encode(self, prompt: str, negative_prompt: str | None) -> Conditioning:
        guided = negative_prompt is not None
        embeds, mask, negative_embeds, negative_mask = self.pipeline.encode_prompt(
            prompt,
            do_classifier_free_guidance=guided,
            negative_prompt=negative_prompt or "",
            **self._prompt_settings,
        )
        if guided:
            embeds, mask = torch.cat([negative_embeds, embeds]), torch.cat([negative_mask, mask])
        return {"encoder_hidden_states": embeds, "encoder_attention_mask": mask}

    def noise(self, seeds: Sequence[int], image: pb.ImageSpec) -> torch.Tensor:
        return to_device(drawn(seeds, self.latent_shape(image), torch.float32), self.device)

    def _schedule(self, image: pb.ImageSpec) -> Schedule:
        # Evenly spaced before the shift, as the hub's sampler spaces them. The Euler sampler's own
        # default shifts its last level twice and spends a step on almost no noise.
        steps = image.num_inference_steps
        scheduler = self.pipeline.scheduler
        scheduler.set_timesteps(device=self.device, sigmas=np.linspace(1.0, 1.0 / steps, steps))
        return Schedule(image, scheduler.timesteps.clone(), scheduler.sigmas.clone())

    def denoise(
        self, latents: torch.Tensor, conditioning: Conditioning, schedule: Schedule, index: int
    ) -> torch.Tensor:
        batch = len(latents)
        guided = self.guided(schedule.image)
        latents_in = torch.cat([latents, latents]) if guided else latents
        timestep = schedule.timesteps[index].expand(len(latents_in))
        model_pred: torch.Tensor = self.denoiser(
            hidden_states=latents_in.to(self.dtype),
            timestep=timestep * self.denoiser.config.timestep_scale,
            return_dict=False,
            **{name: rows.repeat_interleave(batch, dim=0) for name, rows in conditioning.items()},
        )[0].float()
        if guided:
            negative_pred, prompt_pred = model_pred.chunk(2)
            scale = schedule.image.guidance_scale
            model_pred = negative_pred + scale * (prompt_pred - negative_pred)
        return model_pred


def _before_lowering(prompt: str, places: Sequence[int]) -> list[int]:
    """For each place in ``prompt.lower().strip()`` the place in ``prompt``: some letters become two
    in lower case."""
    origins = [index for index, letter in enumerate(prompt) for _ in letter.lower()]
    lowered = prompt.lower()
    skipped = len(lowered) - len(lowered.lstrip())
    return [origins[place + skipped] for place in places] if origins else [0] * len(places)
