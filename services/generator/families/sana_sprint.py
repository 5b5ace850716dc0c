"""SANA-Sprint: a Sana distilled to one to four steps (Chen et al., 2025, arXiv 2503.09641;
diffusers' ``SanaSprintPipeline``)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import SCMScheduler

from dualprocess.v1 import generator_pb2 as pb
from services.common.presets import GeneratorPreset
from services.common.to_device import to_device
from services.generator.families.base import Conditioning, Schedule
from services.generator.families.sampler_settings import check_class, refusal
from services.generator.families.sana import SanaModel

#: The pipeline's own: where every run begins, and the second of exactly two steps.
_FIRST_ANGLE = 1.57080
_SECOND_OF_TWO = 1.3


class SanaSprint(SanaModel):
    """TrigFlow: x_t = cos(t) x0 + sin(t) noise, and the prediction is
    v = cos(t) noise - sin(t) x0 (Lu and Song, 2024, arXiv 2410.11081). A step goes all the way to
    x0 and from there back to the next t, with fresh noise.

    Latents are [batch, 1 + n, channels, height, width]: the sample itself, then the noises of the
    n steps ahead that draw one. Everything is in units of the scheduler's ``sigma_data``, which
    cancels. Predictions and x0 are [batch, 1, channels, height, width].

    ``Schedule.timesteps`` and ``Schedule.sigmas`` are the angles t.
    """

    pipeline_class = "SanaSprintPipeline"
    architecture = "sana-sprint"

    def __init__(self, pipeline: Any, preset: GeneratorPreset, device: torch.device) -> None:
        check_class(preset, pipeline.scheduler, [SCMScheduler.__name__])
        prediction = pipeline.scheduler.config.prediction_type
        if prediction != "trigflow":
            raise refusal(
                preset, "prediction_type", prediction, 'where only "trigflow" is supported'
            )
        super().__init__(pipeline, preset, device)

    def _encode(self, prompt: str, negative_prompt: str | None) -> Conditioning:  # noqa: ARG002
        embeds, mask = self.pipeline.encode_prompt(prompt, **self._prompt_settings)
        return {"encoder_hidden_states": embeds, "encoder_attention_mask": mask}

    def noise(self, seeds: Sequence[int], image: pb.ImageSpec) -> torch.Tensor:
        """The pipeline draws from one generator: the start, then a noise after every step.

        The one after the last step has weight sin(0), and is left out.
        """
        shape = self.latent_shape(image)
        generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
        noises_NBCHW = [
            torch.stack([torch.randn(shape, generator=generator) for generator in generators])
            for _ in range(image.num_inference_steps)
        ]
        return to_device(torch.stack(noises_NBCHW, dim=1), self.device)

    def _schedule(self, image: pb.ImageSpec) -> Schedule:
        steps = image.num_inference_steps
        self.pipeline.scheduler.set_timesteps(
            steps,
            device=self.device,
            max_timesteps=_FIRST_ANGLE,
            intermediate_timesteps=_SECOND_OF_TWO if steps == 2 else None,
        )
        angles = self.pipeline.scheduler.timesteps
        return Schedule(image, angles[:-1].clone(), angles.clone())

    def denoise(
        self, latents: torch.Tensor, conditioning: Conditioning, schedule: Schedule, index: int
    ) -> torch.Tensor:
        batch = len(latents)
        config = self.denoiser.config
        guidance = torch.full((batch,), schedule.image.guidance_scale, device=self.device)
        # The network is that of a flow: sigma is the flow's noise level of the same
        # signal-to-noise ratio, where x_sigma = norm * x_t and the flow predicts
        # v_sigma = noise - x0 (section 3.1 of the SANA-Sprint paper).
        angle = schedule.timesteps[index]
        sigma = angle.sin() / (angle.cos() + angle.sin())
        norm = (sigma**2 + (1 - sigma) ** 2).sqrt()
        x_sigma = norm * latents[:, 0]
        v_sigma = self.denoiser(
            hidden_states=x_sigma.to(self.dtype),
            timestep=sigma.expand(batch),
            guidance=guidance.to(self.dtype) * config.guidance_embeds_scale,
            return_dict=False,
            **{name: row.repeat_interleave(batch, dim=0) for name, row in conditioning.items()},
        )[0].float()
        v_angle: torch.Tensor = ((1 - 2 * sigma) * x_sigma + norm**2 * v_sigma) / norm
        return v_angle.unsqueeze(1)

    def advance(
        self, latents: torch.Tensor, model_pred: torch.Tensor, schedule: Schedule, index: int
    ) -> torch.Tensor:
        x0 = self.predict_x0(latents, model_pred, schedule, index)
        if index + 1 == len(schedule):
            return x0
        angle = schedule.sigmas[index + 1]
        sample = angle.cos() * x0 + angle.sin() * latents[:, 1:2]
        return torch.cat([sample, latents[:, 2:]], dim=1)

    def predict_x0(
        self, latents: torch.Tensor, model_pred: torch.Tensor, schedule: Schedule, index: int
    ) -> torch.Tensor:
        angle = schedule.sigmas[index]
        return angle.cos() * latents[:, :1] - angle.sin() * model_pred

    def latent_map(self, x0: torch.Tensor, image: pb.ImageSpec) -> torch.Tensor:  # noqa: ARG002
        return x0[:, 0]

    def decode(self, x0: torch.Tensor, image: pb.ImageSpec) -> torch.Tensor:
        return super().decode(self.latent_map(x0, image), image)
