"""REST specs as the messages that the services take."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from dualprocess.schemas import ImageSettings, Question, ResolvedImagesSpec, ResolvedJobSpec
from dualprocess.v1 import generator_pb2, tensor_pb2, vlm_pb2
from services.common.channels import CHUNK_BYTES

_INITS = {
    "gaussian": generator_pb2.LORA_INIT_GAUSSIAN,
    "kaiming": generator_pb2.LORA_INIT_KAIMING,
}
_TIMESTEPS = {
    "random": generator_pb2.TIMESTEP_RANDOM,
    "first": generator_pb2.TIMESTEP_FIRST,
    "last": generator_pb2.TIMESTEP_LAST,
}
_DTYPES = {
    "auto": tensor_pb2.DTYPE_UNSPECIFIED,
    "float32": tensor_pb2.DTYPE_FLOAT32,
    "bfloat16": tensor_pb2.DTYPE_BFLOAT16,
}
_MODES = {
    "solid": vlm_pb2.VISUAL_PROMPT_MODE_SOLID,
    "transparent": vlm_pb2.VISUAL_PROMPT_MODE_TRANSPARENT,
}


def optimize_spec(
    spec: ResolvedJobSpec,
    targets: Mapping[str, str],
    *,
    start_blob: str = "",
    resume: generator_pb2.Resume | None = None,
) -> generator_pb2.OptimizeSpec:
    """``targets`` says where each VLM answers, ``start_blob`` which blob is the LoRA to begin
    with, ``resume`` where the job goes on."""
    lora, optimizer = spec.lora, spec.optimizer
    guard = generator_pb2.GuardSpec(
        anchor=spec.guard.anchor, margin=spec.guard.margin, worst_case=spec.guard.worst_case
    )
    if guard.margin == 1:  # as a float32, so what is closest to 1 too
        guard.margin = 0
    return generator_pb2.OptimizeSpec(
        prompts=spec.prompts,
        questions=questions(spec.questions),
        question_postfix=spec.question_postfix,
        vlms=[
            generator_pb2.VlmEndpoint(preset=use.name, target=targets[use.name], weight=use.weight)
            for use in spec.vlm
        ],
        image=_image(spec.image),
        lora=generator_pb2.LoraSpec(
            rank=lora.rank,
            alpha=lora.alpha,
            weight=lora.weight,
            target_modules=lora.target_modules,
            init=_INITS[lora.init],
            dtype=_DTYPES[lora.dtype],
            start_blob=start_blob,
        ),
        optimizer=generator_pb2.OptimizerSpec(
            steps=optimizer.steps,
            batch=optimizer.batch,
            accumulate=optimizer.accumulate,
            lr=optimizer.lr,
            weight_decay=optimizer.weight_decay,
            max_grad_norm=optimizer.max_grad_norm,
            seed=optimizer.seed,
            noise_seeds=optimizer.noise_seeds or optimizer.steps,
            timestep=_TIMESTEPS[optimizer.timestep],
            checkpoint_every=optimizer.checkpoint_every,
        ),
        guard=guard,
        eval=generator_pb2.EvalSpec(
            images=spec.eval.images, seed=spec.eval.seed, every=spec.eval.every
        ),
        resume=resume,
    )


def generate_requests(
    spec: ResolvedImagesSpec, loras: Sequence[bytes]
) -> Iterator[generator_pb2.GenerateRequest]:
    """The spec, then the LoRAs it names, in pieces. ``loras`` are those of ``spec.loras``."""
    names = [f"lora-{index}" for index in range(len(loras))]
    references = [
        generator_pb2.LoraReference(blob=name, weight=use.weight)
        for name, use in zip(names, spec.loras, strict=True)
    ]
    yield generator_pb2.GenerateRequest(
        spec=generator_pb2.GenerateSpec(
            prompt=spec.prompt, image=_image(spec.image), seeds=spec.seeds, loras=references
        )
    )
    for name, data in zip(names, loras, strict=True):
        for chunk in chunks(name, data):
            yield generator_pb2.GenerateRequest(blob=chunk)


def chunks(name: str, data: bytes) -> Iterator[generator_pb2.BlobChunk]:
    """A file in pieces."""
    for begin in range(0, len(data), CHUNK_BYTES):
        end = begin + CHUNK_BYTES
        yield generator_pb2.BlobChunk(name=name, data=data[begin:end], last=end >= len(data))


def questions(listed: Iterable[Question]) -> list[vlm_pb2.Question]:
    return [_question(question) for question in listed]


def _question(question: Question) -> vlm_pb2.Question:
    drawn = question.visual_prompt
    prompt = vlm_pb2.VisualPrompt(image=drawn.image, mode=_MODES[drawn.mode]) if drawn else None
    return vlm_pb2.Question(
        question=question.question,
        answer=question.answer,
        visual_prompt=prompt,
        weight=question.weight,
    )


def _image(image: ImageSettings) -> generator_pb2.ImageSpec:
    return generator_pb2.ImageSpec(
        width=image.width,
        height=image.height,
        num_inference_steps=image.num_inference_steps,
        guidance_scale=image.guidance_scale,
        negative_prompt=image.negative_prompt,
    )
