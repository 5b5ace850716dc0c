"""The guard in the generator: the anchor in the gradient, its cost, what is measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
import torch
from safetensors.torch import load

from dualprocess.v1 import generator_pb2 as pb
from dualprocess.v1 import generator_pb2_grpc, tensor_pb2
from services.common.device import DeviceThread
from services.generator import draws
from services.generator.checkpoint import Checkpoint
from services.generator.collateral import anchor, collateral
from services.generator.families.base import GeneratorFamily
from services.generator.guide import Guidance, Guide
from services.generator.lora.adapter import LoraAdapter
from services.generator.lora.export import LORA_FILE
from services.generator.training import Training
from tests.generator.bright import judge
from tests.generator.rows import ROWS, Row
from tests.generator.specs import image_spec, optimize_spec
from tests.generator.test_optimize import run
from tests.generator.wire import ScriptedVlm, requests, vlm_served, whole

WEIGHT = 0.3
#: How probable the right answers about each of two images are.
RIGHT = (0.9, 0.2)
(SCHNELL,) = (row for row in ROWS if row.preset == "flux-schnell")
(SD,) = (row for row in ROWS if row.preset == "sd-1.4")
(SPRINT,) = (row for row in ROWS if row.preset == "sana-sprint")
(FLUX2,) = (row for row in ROWS if row.preset == "flux2-klein")


def guarded(*, steps: int = 3, **optimizer: int) -> pb.OptimizeSpec:
    spec = optimize_spec(steps=steps)
    spec.guard.anchor = WEIGHT
    for name, value in optimizer.items():
        setattr(spec.optimizer, name, value)
    return spec


def with_an_effect(family: GeneratorFamily, spec: pb.OptimizeSpec) -> Mapping[str, torch.Tensor]:
    """Weights of the job's LoRA after a first step, since it changes nothing before."""
    training = Training(family, spec, "first")
    tensors = dict(training.checkpoint(1).tensors)
    training.close()
    random = torch.Generator().manual_seed(0)
    for name, tensor in tensors.items():
        tensors[name] = tensor + 0.02 * torch.randn(tensor.shape, generator=random)
    return tensors


def plain_gradient(
    family: GeneratorFamily,
    spec: pb.OptimizeSpec,
    weights: Mapping[str, torch.Tensor],
    micro_step: int,
    image_gradient: torch.Tensor,
) -> dict[str, torch.Tensor]:
    """Of <image_gradient, images> + WEIGHT * mean of each image's anchor, by RIGHT, in the second
    step, by autograd alone."""
    adapter = LoraAdapter(family, "plain", spec.lora, seed=0)
    for name, parameter in adapter.named_parameters.items():
        parameter.data.copy_(weights[name])
    schedule, conditioning = family.schedule(spec.image), family.encode("a circle", spec.image)
    index = draws.timestep_index(spec.optimizer, 1, micro_step, len(schedule))
    latents = family.noise(draws.noise_seeds(spec.optimizer, 1, micro_step), spec.image)
    with torch.no_grad():
        with adapter.active():
            latents = family.sample(latents, conditioning, schedule, until=index)
        model_pred = family.denoise(latents, conditioning, schedule, index)
        base = family.latent_map(
            family.predict_x0(latents, model_pred, schedule, index), spec.image
        )
    with adapter.active():
        model_pred = family.denoise(latents, conditioning, schedule, index)
        x0 = family.predict_x0(latents, model_pred, schedule, index)
        images = family.decode(x0, spec.image)
        apart_BCHW = family.latent_map(x0, spec.image).float() - base.float()
        far_B = (apart_BCHW**2 + 2.5e-4).sqrt().flatten(1).mean(1)
        far = ((0.03 + 0.97 * torch.tensor(RIGHT) ** 2) * far_B).mean()
        loss = (images * image_gradient).sum().float() + WEIGHT * far
        gradients = torch.autograd.grad(loss, adapter.parameters)
    named = dict(zip(adapter.named_parameters, gradients, strict=True))
    adapter.remove()
    return named


@pytest.mark.parametrize(
    ("row", "image", "dtype", "accumulate"),
    [
        (SCHNELL, image_spec(), "float32", 2),
        (SCHNELL, image_spec(), "bfloat16", 1),
        # Classifier-free guidance, several steps; latents in other shapes.
        (SD, image_spec(num_inference_steps=3, guidance_scale=7.5), "float32", 2),
        (FLUX2, image_spec(num_inference_steps=2), "float32", 1),
        (SPRINT, image_spec(num_inference_steps=2, guidance_scale=4.5), "float32", 1),
    ],
    ids=lambda value: str(value).split(":")[0],
)
def test_both_parts_of_the_gradient_are_in_one_step(
    row: Row, image: pb.ImageSpec, dtype: str, accumulate: int
) -> None:
    family = row.load(dtype)
    spec = guarded(accumulate=accumulate, batch=2)
    spec.optimizer.max_grad_norm = 1e9
    spec.image.CopyFrom(image)
    spec.lora.target_modules[:] = row.tiny.lora.target_modules
    weights = with_an_effect(family, spec)
    spec.resume.step = 1
    training = Training(family, spec, "ours", resume=Checkpoint(1, weights).write())
    shape = (2, 3, image.height, image.width)
    random = torch.Generator().manual_seed(1)
    wanted = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    for micro_step in range(accumulate):
        gradient = 1e-4 * torch.randn(shape, generator=random).to(family.dtype)
        made = training.forward(1, micro_step)
        anchor = training.compare(made)
        assert anchor is not None
        training.backward(made.images, gradient, anchor, RIGHT)
        for name, part in plain_gradient(family, spec, weights, micro_step, gradient).items():
            wanted[name] += part / accumulate
    learned = training.update()
    assert learned.collateral is not None
    assert learned.collateral.drift > 0
    # AdamW keeps a tenth of its first gradient.
    state = training.checkpoint(2).tensors
    training.close()
    got = {name: 10 * state[f"{name}/exp_avg"] for name in wanted}
    norm = torch.cat([part.flatten() for part in wanted.values()]).norm()
    apart = torch.cat([(got[name] - wanted[name]).flatten() for name in wanted]).norm()
    assert norm > 0
    assert apart / norm < (1e-4 if dtype == "float32" else 5e-2)


def denoiser_calls(family: GeneratorFamily, monkeypatch: pytest.MonkeyPatch) -> dict[bool, int]:
    """How often the denoiser is called with gradient, and without."""
    calls = {True: 0, False: 0}
    denoise = family.denoise

    def counted(*arguments: object) -> torch.Tensor:
        calls[torch.is_grad_enabled()] += 1
        return denoise(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(family, "denoise", counted)
    return calls


@pytest.mark.parametrize(
    ("weight", "prompts", "optimizer", "without_gradient"),
    [
        (0.0, 1, {}, 0),
        (WEIGHT, 1, {}, 4),
        (WEIGHT, 1, {"noise_seeds": 1}, 1),
        (WEIGHT, 1, {"noise_seeds": 3}, 3),
        (WEIGHT, 1, {"noise_seeds": 2, "accumulate": 2}, 4),
        # The same noise with another prompt is another picture.
        (WEIGHT, 2, {"noise_seeds": 1}, 2),
    ],
)
def test_the_base_is_asked_only_for_what_is_not_known(
    schnell: GeneratorFamily,
    monkeypatch: pytest.MonkeyPatch,
    weight: float,
    prompts: int,
    optimizer: dict[str, int],
    without_gradient: int,
) -> None:
    spec = guarded(steps=4, **optimizer)
    spec.guard.anchor = weight
    spec.prompts[:] = ["a circle", "two squares"][:prompts]
    training = Training(schnell, spec, "counted")
    calls = denoiser_calls(schnell, monkeypatch)
    compared = [
        training.compare(training.forward(step, micro_step))
        for step in range(4)
        for micro_step in range(spec.optimizer.accumulate)
    ]
    training.close()
    assert calls == {True: len(compared), False: without_gradient}
    assert all((one is None) == (weight == 0) for one in compared)


def test_latents_that_the_lora_made_are_never_known(
    load: Callable[[str], GeneratorFamily], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two steps of the sampler, only the first begins at noise that comes again."""
    family = load("sd-1.4")
    spec = guarded(steps=8, noise_seeds=1, batch=1)
    spec.image.num_inference_steps = 2
    spec.lora.target_modules[:] = SD.tiny.lora.target_modules
    indices = [draws.timestep_index(spec.optimizer, step, 0, 2) for step in range(8)]
    assert {0, 1} == set(indices)
    training = Training(family, spec, "counted")
    calls = denoiser_calls(family, monkeypatch)
    for step in range(8):
        training.compare(training.forward(step, 0))
    training.close()
    # A later index: once to get there, once to predict.
    assert calls[False] == 1 + 2 * sum(indices)


async def test_known_predictions_change_no_byte(
    schnell: GeneratorFamily, device: DeviceThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = guarded(noise_seeds=1)
    known = await run(schnell, device, spec)
    monkeypatch.setattr("services.generator.base_predictions._MOST_BYTES", 0)
    anew = await run(schnell, device, spec)
    assert anew.losses == known.losses
    assert anew.files == known.files


async def test_the_anchor_holds_images_near_the_base(
    schnell: GeneratorFamily, device: DeviceThread
) -> None:
    drifts = []
    for weight in (0.0, 10.0):
        spec = guarded(steps=5)
        spec.guard.anchor = weight
        told = await run(schnell, device, spec)
        (found,) = (one.collateral for one in told.responses if one.HasField("collateral"))
        drifts.append(found.drift)
        assert [step.HasField("collateral") for step in told.steps] == [weight > 0] * 5
    assert 0 < drifts[1] < drifts[0] / 2


async def test_terms_for_the_vlm_change_nothing_here(
    schnell: GeneratorFamily, device: DeviceThread
) -> None:
    off = await run(schnell, device, optimize_spec())
    spec = optimize_spec()
    spec.guard.MergeFrom(pb.GuardSpec(margin=0.95, worst_case=0.03))
    only_theirs = await run(schnell, device, spec)
    assert (only_theirs.losses, only_theirs.files) == (off.losses, off.files)
    assert not off.steps[0].HasField("collateral")
    anchored = await run(schnell, device, guarded())
    # The reported loss is that of the answer alone.
    assert anchored.losses[0] == off.losses[0]
    assert anchored.files[LORA_FILE] != off.files[LORA_FILE]


async def test_a_lora_without_an_effect_changed_nothing(
    schnell: GeneratorFamily, device: DeviceThread
) -> None:
    spec = guarded()
    spec.lora.weight, spec.eval.images = 0, 3
    told = await run(schnell, device, spec)
    measured = [step.collateral for step in told.steps]
    measured += [one.collateral for one in told.responses if one.HasField("collateral")]
    assert len(measured) == 4
    assert all((one.drift, one.diversity) == (0, 1) for one in measured)


def apart(*levels: float) -> list[torch.Tensor]:
    return [torch.full((4, 2, 2), level) for level in levels]


def test_drift_and_diversity_are_mean_distances() -> None:
    found = collateral(apart(0, 2, 4), apart(0, 3, 6))
    # 0, 1 and 2 apart from the base; 2, 4 and 2 from each other, where the base has 3, 6 and 3.
    assert found.drift == pytest.approx(1)
    assert found.diversity == pytest.approx(2 / 3)


def test_what_has_no_diversity_is_not_said_to_have_one() -> None:
    assert not collateral(apart(1), apart(0)).HasField("diversity")
    same = collateral(apart(1, 2), apart(0, 0))
    assert not same.HasField("diversity")
    assert same.drift == pytest.approx(1.5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_anchor_has_a_slope_where_nothing_has_changed(dtype: torch.dtype) -> None:
    base = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0)).to(dtype)
    x0 = base.clone().requires_grad_()
    distance = anchor(x0, base)
    (gradient,) = torch.autograd.grad(distance.sum(), x0)
    assert distance.dtype == torch.float32
    assert (gradient == 0).all()
    assert anchor(base + 1, base).tolist() == pytest.approx([1, 1], rel=2e-2)


async def test_the_anchor_counts_by_how_probable_the_answers_are(
    schnell: GeneratorFamily, device: DeviceThread
) -> None:
    """While the answers are wrong, a LoRA learns almost as without an anchor."""

    def answering(probability: float) -> Guide:
        async def guide(message: tensor_pb2.Tensor) -> Guidance:
            guidance = judge(message)
            for row in guidance.answers:
                for answer in row:
                    answer.geometric_mean_probability = probability
            return guidance

        return guide

    off, wrong, right = [
        load((await run(schnell, device, spec, guide)).files[LORA_FILE])
        for spec, guide in (
            (optimize_spec(), answering(1.0)),
            (guarded(), answering(0.0)),
            (guarded(), answering(1.0)),
        )
    ]
    moved = [
        sum((lora[name] - off[name]).square().sum().item() for name in off) ** 0.5
        for lora in (wrong, right)
    ]
    assert 0 < moved[0] < 0.3 * moved[1], moved


async def test_every_teacher_hears_of_the_guard(
    stub: generator_pb2_grpc.GeneratorAsyncStub, vlm: ScriptedVlm
) -> None:
    other = ScriptedVlm()  # type: ignore[abstract]  # only Guide is ever called
    async with vlm_served(vlm) as port, vlm_served(other) as other_port:
        spec = guarded(steps=1)
        spec.guard.margin, spec.guard.worst_case = 0.95, 0.03
        spec.questions[0].weight = 2.5
        targets = [f"127.0.0.1:{one}" for one in (port, other_port)]
        del spec.vlms[:]
        spec.vlms.extend(pb.VlmEndpoint(preset="a", target=one, weight=1) for one in targets)
        await whole(stub.Optimize(iter(requests(spec))))
        spec.ClearField("guard")
        await whole(stub.Optimize(iter(requests(spec))))
    for teacher in (vlm, other):
        on, off = teacher.requests
        assert (on.guard.margin, on.guard.worst_case) == pytest.approx((0.95, 0.03))
        assert (off.guard.margin, off.guard.worst_case) == (0, 0)
        assert on.questions[0].weight == 2.5
