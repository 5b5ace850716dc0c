"""One job's LoRA, optimiser and place in its schedule. Every method runs on the device's thread."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from dualprocess.v1 import generator_pb2 as pb
from services.common.errors import InvalidInput, NonFinite
from services.common.torch_tensors import DTYPES
from services.common.transfer import upload
from services.generator import checkpoint, draws, sample
from services.generator.base_predictions import BasePredictions, Origin
from services.generator.collateral import (
    anchor,
    anchor_share,
    collateral_of,
    distances,
    mean_collateral,
)
from services.generator.families.base import GeneratorFamily
from services.generator.lora.adapter import LoraAdapter
from services.generator.lora.export import KOHYA_FILE, LORA_FILE, diffusers_file, kohya_file
from services.generator.lora.loaded import LoadedLoras
from services.generator.lora.read import LoraFile, read_lora
from services.generator.recorded import RecordedSampling, RecordedTraining


@dataclass(frozen=True)
class Made:
    """The output of a step's forward pass: ``images`` [batch, 3, height, width] in [-1, 1], not
    clamped, and the ``x0`` that they were decoded from, both attached to the LoRA; and where they
    come from."""

    images: torch.Tensor
    x0: torch.Tensor
    origin: Origin


@dataclass(frozen=True)
class Learned:
    """What a step did: the gradient's norm before clipping, and what changed, for a job with an
    anchor."""

    grad_norm: float
    collateral: pb.Collateral | None


class Training:
    """``forward`` makes images; ``compare`` asks the base model for its own, where the job has an
    anchor; ``backward`` takes the loss's gradient with respect to the images, and the anchor's.

    Between the two, other jobs may use the same denoiser. ``update`` ends a step. ``close`` takes
    the LoRA off again. ``start`` is the file of the LoRA to begin with, ``resume`` that of the
    checkpoint to go on from, after ``spec.resume.step`` steps. Raises ``InvalidInput`` for a LoRA
    and ``BadCheckpoint`` for a checkpoint that can't be.
    """

    def __init__(
        self,
        family: GeneratorFamily,
        spec: pb.OptimizeSpec,
        name: str,
        *,
        start: bytes | None = None,
        resume: bytes | None = None,
    ) -> None:
        self._family = family
        self._spec = spec
        self._conditionings = family.encode_all(spec.prompts, spec.image)
        self._schedule = family.schedule(spec.image)
        self._base = BasePredictions(family, self._schedule, spec.optimizer)
        seed = draws.lora_seed(spec.optimizer)
        saved = None
        if resume is not None:
            saved = checkpoint.read(resume, steps_done=spec.resume.step)
        begin = LoraFile({}) if start is None or saved else _read_start(start, family)
        #: Warnings for the job's owner.
        self.warnings = [f"lora.start: {note}" for note in begin.notes]
        self._name = name
        self._lora = LoraAdapter(family, name, spec.lora, seed, begin.loras)
        self._sampling = RecordedSampling(family)
        self._recorded = RecordedTraining(family, self._lora.parameters)
        #: The LoRA that pictures are drawn with.
        self._shown: LoraAdapter | LoadedLoras = self._lora
        #: Of the step's comparisons, on the device until the step ends.
        self._distances: list[torch.Tensor] = []
        self._fused = fuses(family.device)
        try:
            self._optimizer: Any = torch.optim.AdamW(
                self._lora.parameters,
                lr=spec.optimizer.lr,
                weight_decay=spec.optimizer.weight_decay,
                # None is torch's own choice.
                fused=self._fused or None,
            )
            if saved:
                checkpoint.restore(saved, self._lora.named_parameters, self._optimizer)
        except BaseException:
            # The caller can't close what was never made.
            self._lora.remove()
            raise

    @property
    def trainable_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self._lora.parameters)

    def forward(self, step: int, micro_step: int) -> Made:
        """Images of the step, in the model's dtype.

        Samples without gradient to the step's timestep, calls the denoiser once with gradient,
        predicts x0 and decodes it. ``step`` and ``micro_step`` count from 0. Whether the images are
        finite is not known before they are read on the host, so that this doesn't wait for them.
        """
        family, schedule, optimizer = self._family, self._schedule, self._spec.optimizer
        prompt = draws.prompt_index(optimizer, step, len(self._conditionings))
        conditioning = self._conditionings[prompt]
        index = draws.timestep_index(optimizer, step, micro_step, len(schedule))
        latents = family.noise(draws.noise_seeds(optimizer, step, micro_step), self._spec.image)
        with self._lora.active():
            latents = self._sampling.sample(latents, conditioning, schedule, until=index)
            images, x0 = self._recorded(latents, conditioning, schedule, index)
        place = (prompt, step % optimizer.noise_seeds, micro_step)
        return Made(images, x0, Origin(latents, conditioning, index, place))

    def compare(self, made: Made) -> torch.Tensor | None:
        """The ``anchor`` [batch], attached to the LoRA: a comparison with the base model's
        prediction from the same latents. ``None`` for a job without an anchor. It and the VLM's
        answer don't depend on each other, so both can be computed at the same time."""
        if not self._spec.guard.anchor:
            return None
        base = self._base.x0(made.origin)
        lora_BCHW = self._family.latent_map(made.x0, self._spec.image)
        base_BCHW = self._family.latent_map(base, self._spec.image)
        self._distances.append(distances(lora_BCHW.detach().unbind(), base_BCHW.unbind()))
        return anchor(lora_BCHW, base_BCHW)

    def backward(
        self,
        images: torch.Tensor,
        gradient: torch.Tensor,
        anchor: torch.Tensor | None = None,
        right: Sequence[float] = (),
    ) -> None:
        """Adds d loss / d LoRA in one pass: from ``gradient`` = d loss / d ``images``, and from the
        mean of the ``anchor`` of each image, each with the ``anchor_share`` of how probable its
        answers are, ``right``.
        """
        accumulate = self._spec.optimizer.accumulate
        heads, gradients = [images], [gradient.to(images, non_blocking=True) / accumulate]
        if anchor is not None:
            weight = self._spec.guard.anchor / len(anchor) / accumulate
            heads.append(anchor)
            shares = torch.tensor([anchor_share(one) for one in right], dtype=anchor.dtype)
            gradients.append(weight * upload(shares, anchor.device))
        with self._lora.active():
            torch.autograd.backward(heads, gradients)

    def update(self) -> Learned:
        """Clips, and steps AdamW. It waits for the device once, when nothing is left to queue.

        Raises ``NonFinite`` and leaves the weights as they were when the gradient's norm is not
        finite. ``skip`` is to be called then.
        """
        norm = torch.nn.utils.clip_grad_norm_(
            self._lora.parameters, self._spec.optimizer.max_grad_norm
        )
        if self._fused:
            # Its kernels look at this themselves, and then change nothing.
            self._optimizer.found_inf = norm.isfinite().logical_not().float()
            self._optimizer.step()
        grad_norm, *figures = torch.cat([norm.reshape(1), *self._distances]).tolist()
        if not np.isfinite(grad_norm):
            raise NonFinite(f"the LoRA's gradient is not finite (norm {grad_norm})")
        if not self._fused:
            self._optimizer.step()
        changed = self._changed(figures)
        self.skip()
        return Learned(grad_norm, changed)

    def _changed(self, figures: Sequence[float]) -> pb.Collateral | None:
        """The mean of the step's comparisons, from the numbers of all ``_distances``."""
        if not self._distances:
            return None
        each = len(figures) // len(self._distances)
        return mean_collateral(
            [
                collateral_of(figures[begin : begin + each], images=self._spec.optimizer.batch)
                for begin in range(0, len(figures), each)
            ]
        )

    def skip(self) -> None:
        """Ends a step without having learned from it."""
        self._distances.clear()
        self._optimizer.zero_grad(set_to_none=True)

    def checkpoint(self, steps_done: int) -> checkpoint.Checkpoint:
        """A checkpoint from which another run can go on; call it between two steps."""
        return checkpoint.take(self._lora.named_parameters, self._optimizer, steps_done=steps_done)

    def draw(self, seed: int, *, with_lora: bool) -> sample.Drawn:
        """An evaluation image of the first prompt."""
        conditioning = self._conditionings[0]
        if not with_lora:
            return sample.draw(self._family, conditioning, self._spec.image, seed)
        with self._shown.active():
            return sample.draw(self._family, conditioning, self._spec.image, seed)

    def export(self) -> dict[str, bytes]:
        """The LoRA as it is now, as files by name.

        From now on ``draw`` uses that file. With a base of less than float32, rounding the LoRA
        changes the image slightly, and a job's pictures must be those that its file gives.
        """
        dtype, title, rank = self._file_dtype(), self._spec.prompts[0], self._spec.lora.rank
        tensors = {key: tensor.to(dtype) for key, tensor in self._lora.tensors().items()}
        files = {
            LORA_FILE: diffusers_file(tensors, self._family, rank=rank, title=title),
            KOHYA_FILE: kohya_file(tensors, self._family, rank=rank, title=title),
        }
        written = {name: file for name, file in files.items() if file is not None}
        if dtype != torch.float32 or self._family.dtype != torch.float32:
            self._show(written[LORA_FILE])
        return written

    def _file_dtype(self) -> torch.dtype:
        if self._spec.lora.dtype:
            return DTYPES[self._spec.lora.dtype]
        return torch.bfloat16 if self._family.dtype == torch.bfloat16 else torch.float32

    def _show(self, file: bytes) -> None:
        exported = LoadedLoras(self._family, f"{self._name}-exported", [file], [1.0])
        if isinstance(self._shown, LoadedLoras):
            self._shown.close()
        self._shown = exported

    def close(self) -> None:
        if isinstance(self._shown, LoadedLoras):
            self._shown.close()
        self._optimizer.zero_grad(set_to_none=True)
        self._recorded.close()
        self._lora.remove()


def fuses(device: torch.device) -> bool:
    """Whether AdamW is torch's fused one there. On the CPU its last bits would be others."""
    return device.type == "cuda"


def _read_start(file: bytes, family: GeneratorFamily) -> LoraFile:
    try:
        return read_lora(file, family)
    except InvalidInput as error:
        raise InvalidInput(f"lora.start: {error}") from error
