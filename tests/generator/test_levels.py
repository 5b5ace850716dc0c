"""What a generator computes does not depend on how much of it is kept on the device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import pytest
import torch
from torch.nn import Embedding
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from dualprocess.v1 import generator_pb2 as pb
from services.common.footprint.meter import Meter
from services.common.memory import LEVELS, MemoryChoice
from services.generator import registry
from services.generator.families.base import GeneratorFamily
from services.generator.memory import levels
from services.generator.training import Made, Training
from tests.generator.rows import ROWS, Row
from tests.generator.specs import optimize_spec

CPU = torch.device("cpu")
BY_PRESET = {row.preset: row for row in ROWS}
FLUX = BY_PRESET["flux-dev"]
each_row = pytest.mark.parametrize("row", ROWS, ids=str)


def loaded(row: Row, level: MemoryChoice, dtype: str = "float32") -> GeneratorFamily:
    return registry.load(row.tiny.model_copy(update={"dtype": dtype}), CPU, level)


def job(row: Row, *more_targets: str, prompt: str = "a circle", batch: int = 2) -> pb.OptimizeSpec:
    """A job whose timesteps are drawn, so that some latents are sampled to first."""
    spec = optimize_spec(steps=3)
    spec.prompts[:] = [prompt]
    spec.image.CopyFrom(row.images[0])
    spec.image.num_inference_steps = min(2, spec.image.num_inference_steps)
    spec.lora.target_modules[:] = [*row.tiny.lora.target_modules, *more_targets]
    spec.optimizer.batch = batch
    spec.guard.anchor = 0.5
    return spec


def backward(training: Training, made: Made) -> None:
    generator = torch.Generator().manual_seed(1)
    gradient = torch.randn(made.images.shape, generator=generator)
    # The base model runs between the two passes.
    training.compare(made)
    training.backward(made.images, gradient)


class Learned(NamedTuple):
    """Of one job. The checkpoint has the moments of the gradients."""

    images: torch.Tensor
    checkpoint: bytes


def step(
    family: GeneratorFamily, specs: Sequence[pb.OptimizeSpec], files: Sequence[bytes | None]
) -> list[Learned]:
    """The next step of jobs that take turns between forward and backward pass."""
    jobs = [
        Training(family, spec, f"job{number}", resume=file)
        for number, (spec, file) in enumerate(zip(specs, files, strict=True))
    ]
    done = specs[0].resume.step
    results = []
    all_made = [training.forward(done, 0) for training in jobs]
    for training, made in zip(jobs, all_made, strict=True):
        backward(training, made)
        training.update()
        checkpoint = training.checkpoint(done + 1).write()
        results.append(Learned(made.images.detach(), checkpoint))
        training.close()
    return results


def begin(family: GeneratorFamily, specs: Sequence[pb.OptimizeSpec]) -> list[bytes | None]:
    """Checkpoints of the jobs after a step, so that their LoRAs have an effect."""
    files = [learned.checkpoint for learned in step(family, specs, [None] * len(specs))]
    for spec in specs:
        spec.resume.step = 1
    return [*files]


def check_same(ours: Sequence[Learned], theirs: Sequence[Learned]) -> None:
    for one, other in zip(ours, theirs, strict=True):
        assert torch.equal(one.images, other.images)
        assert one.checkpoint == other.checkpoint


@each_row
def test_each_level_learns_the_same_bits(row: Row) -> None:
    family, spec = loaded(row, "fast"), job(row)
    files = begin(family, [spec])
    wanted = step(family, [spec], files)
    for level in ("decoder", "blocks", "lean"):
        levels.apply(family, level)
        check_same(step(family, [spec], files), wanted)


@pytest.mark.parametrize("name", ["flux-schnell", "flux2-klein", "sd-1.4", "sana-sprint"])
def test_recomputing_either_part_needs_less_and_both_the_least(name: str) -> None:
    row = BY_PRESET[name]
    family, peaks = loaded(row, "fast"), {}
    training = Training(family, job(row, batch=1), "job")
    for level in LEVELS:
        levels.apply(family, level)
        meter = Meter()
        with meter:
            backward(training, training.forward(0, 0))
        peaks[level] = meter.peak
        training.skip()
    training.close()
    assert peaks["decoder"] < peaks["fast"]
    assert peaks["blocks"] < peaks["fast"]
    assert peaks["lean"] < min(peaks["decoder"], peaks["blocks"])


@pytest.mark.parametrize("name", ["flux-dev", "sd-1.4", "sana-1.6b"])
def test_a_lean_job_learns_the_same_bits_in_bfloat16(name: str) -> None:
    row, spec = BY_PRESET[name], job(BY_PRESET[name])
    family = loaded(row, "fast", "bfloat16")
    files = begin(family, [spec])
    wanted = step(family, [spec], files)
    levels.apply(family, "lean")
    check_same(step(family, [spec], files), wanted)


def test_a_level_may_be_given_twice_and_taken_back() -> None:
    family = loaded(FLUX, "lean")
    levels.apply(family, "lean")
    spec = job(FLUX)
    files = begin(family, [spec])
    wanted = step(family, [spec], files)
    lean = weights(family.denoiser)
    for _ in range(2):
        levels.apply(family, "fast")
    check_same(step(family, [spec], files), wanted)
    assert weights(family.denoiser) == weights(loaded(FLUX, "fast").denoiser) > lean


def weights(network: torch.nn.Module) -> int:
    storages = {parameter.untyped_storage() for parameter in network.parameters()}
    return sum(storage.nbytes() for storage in storages)


def test_only_backward_passes_compute_again() -> None:
    row = BY_PRESET["sana-sprint"]
    family, drawn, learned = loaded(row, "fast"), {}, {}
    training = Training(family, job(row), "job")
    for level in ("fast", "lean"):
        levels.apply(family, level)
        training.draw(7, with_lora=True)
        with FlopCounterMode(display=False) as flops:
            training.draw(7, with_lora=True)
        drawn[level] = flops.get_total_flops()
        with FlopCounterMode(display=False) as flops:
            backward(training, training.forward(0, 0))
        learned[level] = flops.get_total_flops()
    training.close()
    assert 0 < drawn["lean"] <= drawn["fast"]
    assert learned["lean"] > learned["fast"]


MODULATION = ["norm1.linear", "norm1_context.linear", "norm.linear", "norm_out.linear"]


@pytest.mark.parametrize("name", ["flux-schnell", "flux-dev"])
def test_the_modulation_layers_of_flux_leave_the_device(name: str) -> None:
    row = BY_PRESET[name]
    lean, fast = loaded(row, "lean").denoiser, loaded(row, "fast").denoiser
    layers = [module for layer, module in fast.named_modules() if layer.endswith(tuple(MODULATION))]
    assert len(layers) == 2 * len(fast.transformer_blocks) + len(fast.single_transformer_blocks) + 1
    # What stands for them has a number for each tensor.
    gone = sum(weights(layer) for layer in layers) - 2 * 4 * len(layers)
    assert weights(lean) == weights(fast) - gone


def test_modulation_is_computed_once_for_a_prompt_and_schedule() -> None:
    family, image = loaded(FLUX, "lean"), FLUX.images[0]
    schedule, noise = family.schedule(image), family.noise([1], image)

    def flops(family: GeneratorFamily, prompt: str, index: int) -> int:
        conditioning = family.encode(prompt, image)
        with torch.no_grad(), FlopCounterMode(display=False) as counted:
            family.denoise(noise, conditioning, schedule, index)
        return int(counted.get_total_flops())

    usual = flops(loaded(FLUX, "fast"), "a circle", 0)
    first = flops(family, "a circle", 0)
    other = flops(family, "a square", 1)
    assert first == other > usual
    again = [flops(family, prompt, 2) for prompt in ("a circle", "a square", "a circle")]
    assert max(again) < usual


#: What the modulation is computed from.
EMBEDDED = ["timestep_embedder.linear_1", "text_embedder.linear_2"]


def test_modulation_is_right_for_jobs_side_by_side() -> None:
    """Of another prompt and batch, and with a LoRA on the very layers that leave the device, or
    before them."""
    others = [job(FLUX, prompt="a square", batch=1), job(FLUX, *MODULATION), job(FLUX, *EMBEDDED)]
    specs = [job(FLUX), *others]
    fast = loaded(FLUX, "fast")
    files = begin(fast, specs)
    wanted = step(fast, specs, files)
    family = loaded(FLUX, "lean")
    for chosen in (slice(4), slice(1), slice(2)):
        check_same(step(family, specs[chosen], files[chosen]), wanted[chosen])


@each_row
def test_prompts_are_encoded_to_the_same_bits_when_layers_come_one_by_one(row: Row) -> None:
    image, prompts = row.images[-1], ["a circle", "Photo of a man"]
    fast, lean = loaded(row, "fast"), loaded(row, "lean")
    wanted = fast.encode_all(prompts, image)
    for ours, theirs in zip(lean.encode_all(prompts, image), wanted, strict=True):
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("name", ["flux-schnell", "sana-1.6b"])
def test_the_device_has_one_layer_of_a_text_encoder_at_a_time(name: str) -> None:
    row = BY_PRESET[name]
    family, whole = loaded(row, "lean"), loaded(row, "fast")
    # Tables of embeddings are read in the host's memory.
    layers = [
        weights(part)
        for encoder in whole.text_encoders
        for part in encoder.modules()
        if not isinstance(part, Embedding) and not list(part.children())
    ]
    with MostWeights(family.text_encoders) as most:
        family.encode("a circle", row.images[0])
    assert max(layers) <= most.seen < 1.2 * max(layers)


class MostWeights(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """The most that the encoders have on the device at the same time, tables left out."""

    def __init__(self, encoders: Sequence[torch.nn.Module]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._layers = [
            part
            for encoder in encoders
            for part in encoder.modules()
            if part._parameters and not isinstance(part, Embedding)
        ]
        self.seen = 0

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        has = [own for layer in self._layers for own in layer.parameters(recurse=False)]
        self.seen = max(self.seen, sum(own.untyped_storage().nbytes() for own in has))
        return func(*args, **(kwargs or {}))
