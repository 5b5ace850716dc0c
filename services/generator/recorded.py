"""A generator's steps from recordings, where its device can: see ``services.common.replay``.

A recording has the latents, the noise levels and the prompt's conditioning as inputs, so one
serves every step of a job. The LoRA's weights are read where they are.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch

from services.common.replay import RECORDED_AT, Replays
from services.common.transfer import Kept, upload
from services.generator.families.base import Conditioning, GeneratorFamily, Schedule

log = logging.getLogger(__name__)

#: Images and x0 from the inputs of a step, then the LoRA's parameters.
_Recording: TypeAlias = Callable[..., tuple[torch.Tensor, torch.Tensor]]

#: So much more memory than the steps before it took must be free for a recording.
_ROOM = 1.2


def records(family: GeneratorFamily) -> bool:
    """Whether its steps are recorded: on a GPU, and where memory is not short."""
    is_roomy = family.memory in ("fast", "decoder")
    return family.device.type == "cuda" and family.preset.recordings and is_roomy


class RecordedSampling:
    """Steps of the sampler without gradient, always with the same adapters."""

    def __init__(self, family: GeneratorFamily) -> None:
        self._family = family
        self._may_record = records(family)
        self._replays: Replays[None] = Replays(family.device)

    @torch.no_grad()
    def sample(
        self, latents: torch.Tensor, conditioning: Conditioning, schedule: Schedule, until: int
    ) -> torch.Tensor:
        """As the family's ``sample``."""
        if not self._may_record:
            return self._family.sample(latents, conditioning, schedule, until)
        for index in range(until):
            latents = self._run("advance", latents, conditioning, schedule, index)
        return latents

    def x0(
        self, latents: torch.Tensor, conditioning: Conditioning, schedule: Schedule, index: int
    ) -> torch.Tensor:
        """What the prediction at ``index`` implies, as ``predict_x0`` gives it."""
        return self._run("predict_x0", latents, conditioning, schedule, index)

    def _run(
        self,
        method: str,
        latents: torch.Tensor,
        conditioning: Conditioning,
        schedule: Schedule,
        index: int,
    ) -> torch.Tensor:
        family = self._family
        if not self._may_record:
            model_pred = family.denoise(latents, conditioning, schedule, index)
            result: torch.Tensor = getattr(family, method)(latents, model_pred, schedule, index)
            return result
        step = _Inputs(conditioning, schedule)

        def work(latents: torch.Tensor, *rest: torch.Tensor) -> tuple[list[torch.Tensor], None]:
            its_conditioning, its_schedule = step.read(rest)
            model_pred = family.denoise(latents, its_conditioning, its_schedule, 0)
            return [getattr(family, method)(latents, model_pred, its_schedule, 0)], None

        key = (method, schedule.image.SerializeToString(deterministic=True))
        (replayed,), _ = self._replays(key, work, latents, *step.tensors(index, family.device))
        return replayed


class RecordedTraining:
    """The step that trains, from latents to images, with one LoRA: its forward pass and, when
    autograd comes to it, its backward pass. ``parameters`` are the LoRA's."""

    def __init__(self, family: GeneratorFamily, parameters: Sequence[torch.Tensor]) -> None:
        self._family = family
        self._parameters = parameters
        self._may_record = records(family)
        self._times = 0
        self._recording: _Recording | None = None
        self._shapes: Sequence[torch.Size] = ()

    def __call__(
        self, latents: torch.Tensor, conditioning: Conditioning, schedule: Schedule, index: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Images and the x0 that they were decoded from, attached to the LoRA."""
        if not self._may_record:
            return _images(self._family, latents, conditioning, schedule, index)
        step = _Inputs(conditioning, schedule)
        inputs = [latents, *step.tensors(index, self._family.device)]
        self._times += 1
        if self._recording is None and self._times >= RECORDED_AT:
            self._record(step, inputs)
        recording = self._recording
        # A prompt of another length is another computation.
        if recording is None or [each.shape for each in inputs] != self._shapes:
            return _images(self._family, latents, conditioning, schedule, index)
        images, x0 = recording(*inputs, *self._parameters)
        return images, x0

    def close(self) -> None:
        """Gives the recording's memory back."""
        if self._recording is not None:
            self._recording = None
            # It refers to itself.
            gc.collect()

    def _record(self, step: _Inputs, inputs: Sequence[torch.Tensor]) -> None:
        if not _is_room(self._family.device):
            self._may_record = False
            return
        family, constants = self._family, Kept()

        def work(latents: torch.Tensor, *rest: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            # The parameters come as inputs for their gradients; the layers have them already.
            with constants.used():
                return _images(family, latents, *step.read(rest[: len(inputs) - 1]), 0)

        static = [each.clone() for each in inputs]
        try:
            recording: _Recording = torch.cuda.make_graphed_callables(  # type: ignore[assignment]
                work, (*static, *self._parameters), allow_unused_input=True
            )
        except RuntimeError as error:
            self._may_record = False
            reason = str(error).partition("\n")[0]
            log.warning("the job's steps are not recorded, and run as before: %s", reason)
            return
        self._recording = recording
        self._shapes = [each.shape for each in inputs]


class _Inputs:
    """What a step takes besides latents, as tensors: the noise levels from its index on, and the
    conditioning."""

    def __init__(self, conditioning: Conditioning, schedule: Schedule) -> None:
        self._conditioning = conditioning
        self._schedule = schedule
        self._has_ends = schedule.ends is not None

    def tensors(self, index: int, device: torch.device) -> list[torch.Tensor]:
        """Levels of this step and, since a sampler's last step may differ, of the next."""
        schedule, two = self._schedule, slice(index, index + 2)
        levels = [schedule.timesteps[two], schedule.sigmas[index : index + 3]]
        if schedule.ends is not None:
            levels.append(schedule.ends[two])
        return [*(upload(each, device) for each in levels), *self._conditioning.values()]

    def read(self, tensors: Sequence[torch.Tensor]) -> tuple[Conditioning, Schedule]:
        """The conditioning, and a schedule that begins with this step."""
        timesteps, sigmas, *rest = tensors
        ends = rest.pop(0) if self._has_ends else None
        conditioning = dict(zip(self._conditioning, rest, strict=True))
        return conditioning, Schedule(self._schedule.image, timesteps, sigmas, ends)


def _images(
    family: GeneratorFamily,
    latents: torch.Tensor,
    conditioning: Conditioning,
    schedule: Schedule,
    index: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    model_pred = family.denoise(latents, conditioning, schedule, index)
    x0 = family.predict_x0(latents, model_pred, schedule, index)
    return family.decode(x0, schedule.image), x0


def _is_room(device: torch.device) -> bool:
    free, _ = torch.cuda.mem_get_info(device)
    allocated = torch.cuda.memory_allocated(device)
    cached = torch.cuda.memory_reserved(device) - allocated
    return free + cached >= _ROOM * (torch.cuda.max_memory_allocated(device) - allocated)
