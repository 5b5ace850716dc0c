"""Fills in what a user left out from the presets, and refuses what a preset can't do, naming the
field."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Protocol, TypeVar

from pydantic import BaseModel

from dualprocess.schemas import (
    FieldError,
    GuardSettings,
    ImagesRequest,
    JobLoraSettings,
    JobSpec,
    LoraOptions,
    Question,
    ResolvedImagesSpec,
    ResolvedJobSpec,
    VisualPrompt,
    VlmUse,
)
from services.common.errors import InvalidInput
from services.common.limits import batch_fault, image_faults
from services.common.presets import GeneratorPreset, PresetError, Presets
from services.orchestrator.api.pictures import Drawings, DrawingsTooLarge
from services.orchestrator.api.problems import InvalidSpec

#: Characters of all questions and answers of one spec: each step's event repeats them.
_QUESTIONS_CHARACTERS = 20_000

SettingsT = TypeVar("SettingsT", bound=BaseModel)


class _Asks(Protocol):
    @property
    def questions(self) -> list[Question]: ...


def resolve_job(spec: JobSpec, presets: Presets) -> ResolvedJobSpec:
    """The complete spec. Raises ``InvalidSpec`` with everything that is wrong.

    Drawings are decoded here, so it must not run in the event loop.
    """
    faults = list(_prompt_faults(spec))
    teachers = [VlmUse(name=spec.vlm)] if isinstance(spec.vlm, str) else spec.vlm
    faults += _generator_faults(presets, spec.generator)
    faults += _teacher_faults(presets, spec, teachers)
    questions, question_faults = _questions(spec)
    faults += question_faults
    preset = presets.generators.get(spec.generator)
    if preset is None or faults:
        raise InvalidSpec(*faults)
    image = _merged(preset.image, spec.image)
    optimizer = _merged(preset.optimizer, spec.optimizer)
    faults += _image_faults(preset, image)
    if fault := batch_fault(preset, image, optimizer.batch, questions, spec.question_postfix):
        field, message = fault
        faults.append(FieldError(field=field, message=message))
    lora = _lora(preset, spec.lora)
    if lora.weight == 0:
        usual = f"{spec.generator}'s own is {preset.lora.weight:g}"
        message = f"must not be 0: with 0 nothing is learned; {usual}"
        faults.append(FieldError(field="lora.weight", message=message))
    guard = _guard(preset, spec)
    if spec.stop_at_score is not None and guard.margin < 1 and guard.margin <= spec.stop_at_score:
        message = (
            f"must be above stop_at_score ({spec.stop_at_score:g}): an answer that has reached the "
            "margin is taught no more. Raise it, leave it out, or write 1 for none"
        )
        faults.append(FieldError(field="guard.margin", message=message))
    seeds = optimizer.noise_seeds
    if spec.stop_at_score is not None and seeds is not None and seeds < optimizer.steps:
        message = f"needs new noise at each step; leave optimizer.noise_seeds ({seeds}) out"
        faults.append(FieldError(field="stop_at_score", message=message))
    if faults:
        raise InvalidSpec(*faults)
    return ResolvedJobSpec(
        prompts=spec.prompts or [spec.prompt or ""],
        questions=questions,
        question_postfix=spec.question_postfix,
        generator=spec.generator,
        vlm=teachers,
        judge=spec.judge,
        image=image,
        lora=lora,
        optimizer=optimizer,
        guard=guard,
        eval=_merged(preset.eval, spec.eval),
        stop_at_score=spec.stop_at_score,
        deadline=spec.deadline,
        name=spec.name,
        metadata=spec.metadata,
    )


def resolve_images(request: ImagesRequest, presets: Presets) -> ResolvedImagesSpec:
    """The complete spec. Raises ``InvalidSpec`` with everything that is wrong.

    It must not run in the event loop either.
    """
    faults = list(_generator_faults(presets, request.generator))
    if request.vlm is not None:
        faults += _vlm_faults(presets, "vlm", request.vlm)
    if request.questions and request.vlm is None:
        message = "is missing; questions need a VLM: choose one of " + ", ".join(presets.vlms)
        faults.append(FieldError(field="vlm", message=message))
    questions, question_faults = _questions(request)
    faults += question_faults
    faults += _best_of_faults(request)
    preset = presets.generators.get(request.generator)
    if preset is None or faults:
        raise InvalidSpec(*faults)
    image = _merged(preset.image, request.image)
    if faults := list(_image_faults(preset, image)):
        raise InvalidSpec(*faults)
    return ResolvedImagesSpec(
        prompt=request.prompt,
        generator=request.generator,
        seeds=_drawn(request),
        keep=len(set(request.seeds)) if request.best_of is not None else None,
        loras=request.loras,
        image=image,
        questions=questions,
        question_postfix=request.question_postfix,
        # Without questions no VLM is needed.
        vlm=request.vlm if questions else None,
    )


def _best_of_faults(request: ImagesRequest) -> Iterator[FieldError]:
    if request.best_of is None:
        return
    if not request.questions:
        message = "needs questions, which say what is best; write some, or leave best_of out"
        yield FieldError(field="best_of", message=message)
    if request.best_of < (kept := len(set(request.seeds))):
        message = f"is less than the {kept} images of seeds that are kept; write {kept} or more"
        yield FieldError(field="best_of", message=message)


def _drawn(request: ImagesRequest) -> list[int]:
    """The seeds of the request; with ``best_of`` also others, each once."""
    if request.best_of is None:
        return request.seeds
    largest = max(request.seeds)
    others = ((largest + more) % 2**32 for more in itertools.count(1))
    drawn = dict.fromkeys(request.seeds)
    while len(drawn) < request.best_of:
        drawn[next(others)] = None
    return list(drawn)


def _merged(defaults: SettingsT, options: BaseModel) -> SettingsT:
    return defaults.model_copy(update=options.model_dump(exclude_none=True))


def _guard(preset: GeneratorPreset, spec: JobSpec) -> GuardSettings:
    """A margin that the user left out is chosen so that it is above ``stop_at_score``."""
    guard = _merged(preset.guard, spec.guard)
    if spec.guard.margin is None and spec.stop_at_score is not None:
        guard.margin = max(guard.margin, (1 + spec.stop_at_score) / 2)
    return guard


def _lora(preset: GeneratorPreset, options: LoraOptions) -> JobLoraSettings:
    chosen = preset.lora.model_dump() | options.model_dump(exclude_none=True, exclude={"start"})
    return JobLoraSettings(**chosen, start=options.start)


def _prompt_faults(spec: JobSpec) -> Iterator[FieldError]:
    if spec.prompt is None and spec.prompts is None:
        yield FieldError(field="prompt", message="is missing; write one, or several in prompts")
    if spec.prompt is not None and spec.prompts is not None:
        yield FieldError(
            field="prompts", message="can't be used together with prompt; leave one of them out"
        )


def _generator_faults(presets: Presets, name: str) -> Iterator[FieldError]:
    try:
        presets.generator(name)
    except PresetError as error:
        yield FieldError(field="generator", message=str(error))


def _vlm_faults(presets: Presets, field: str, name: str) -> Iterator[FieldError]:
    try:
        presets.vlm(name)
    except PresetError as error:
        yield FieldError(field=field, message=str(error))


def _teacher_faults(
    presets: Presets, spec: JobSpec, teachers: list[VlmUse]
) -> Iterator[FieldError]:
    names = [use.name for use in teachers]
    for index, name in enumerate(names):
        field = "vlm" if isinstance(spec.vlm, str) else f"vlm.{index}.name"
        yield from _vlm_faults(presets, field, name)
        if name in names[:index]:
            message = f"{name} is named twice; name it once, with one weight"
            yield FieldError(field=field, message=message)
    if spec.judge is not None:
        yield from _vlm_faults(presets, "judge", spec.judge)
        if spec.judge in names:
            message = (
                f"{spec.judge} is a teacher, so it can't be the judge; choose another VLM, or none"
            )
            yield FieldError(field="judge", message=message)


def _image_faults(preset: GeneratorPreset, image: BaseModel) -> Iterator[FieldError]:
    for field, message in image_faults(preset, image):  # type: ignore[arg-type]
        yield FieldError(field=f"image.{field}", message=message)


def _questions(asks: _Asks) -> tuple[list[Question], list[FieldError]]:
    """The questions with their drawings as plain PNGs, and what is wrong with them."""
    questions, faults = [], []
    drawings = Drawings()
    for index, question in enumerate(asks.questions):
        if question.visual_prompt is None:
            questions.append(question)
            continue
        field = f"questions.{index}.visual_prompt.image"
        try:
            png = drawings.plain_png(question.visual_prompt.image, field)
        except InvalidInput as error:
            faults.append(FieldError(field=field, message=str(error).removeprefix(f"{field}: ")))
            continue
        except DrawingsTooLarge as error:
            faults.append(FieldError(field="questions", message=str(error)))
            break
        drawn = VisualPrompt(image=png, mode=question.visual_prompt.mode)
        questions.append(question.model_copy(update={"visual_prompt": drawn}))
    characters = sum(len(asked.question) + len(asked.answer) for asked in asks.questions)
    if characters > _QUESTIONS_CHARACTERS:
        message = (
            f"have {characters:,} characters together; write at most {_QUESTIONS_CHARACTERS:,}"
        )
        faults.append(FieldError(field="questions", message=message))
    return questions, faults
