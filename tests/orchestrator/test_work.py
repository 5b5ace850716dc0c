"""How much work a spec is. One formula counts it; it fits what the models do, and no field that a
user may write escapes it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, get_args

import pytest
import torch
from pydantic import BaseModel

from dualprocess.schemas import (
    AnswersRequest,
    BatchRequest,
    ExpansionRequest,
    ImagesRequest,
    Job,
    JobSpec,
    JobStatus,
    QuestionsRequest,
    ResolvedAnswersSpec,
    ResolvedExpansionSpec,
    ResolvedQuestionsSpec,
    WorkPart,
)
from dualprocess.v1 import generator_pb2_grpc, vlm_pb2_grpc
from models.training.one_process import Pair
from services.common.device import DeviceThread
from services.common.presets import load_presets
from services.generator.servicer import GeneratorServicer
from services.orchestrator.api.resolve import resolve_images, resolve_job
from services.orchestrator.settings import KeySettings
from services.orchestrator.work import MEGAPIXEL, Work, images_work, job_work, words_work
from services.orchestrator.worker.app import Worker
from services.orchestrator.worker.settings import WorkerSettings
from services.vlm.servicer import VlmServicer
from tests.orchestrator.conftest import SPEC, Api, grpc_server
from tests.redis_server import RedisServer

#: The models really compute, which takes longer on a busy machine than other tests.
pytestmark = pytest.mark.timeout(240)

PRESETS = load_presets()
IMAGES = {"prompt": "a circle", "generator": "tiny-flux", "vlm": "tiny-idefics2"}


def of_job(**changes: Any) -> Work:
    spec = resolve_job(JobSpec.model_validate(SPEC | changes), PRESETS)
    return job_work(spec, PRESETS.generator(spec.generator))


def of_images(**changes: Any) -> Work:
    spec = resolve_images(ImagesRequest.model_validate(IMAGES | changes), PRESETS)
    return images_work(spec, PRESETS.generator(spec.generator))


def of_answers(picture: int = 64 * 64, **changes: Any) -> Work:
    written = {"questions": ["Why?"], "question_postfix": "", "max_new_tokens": 8}
    spec = ResolvedAnswersSpec.model_validate({"vlm": "qwen2.5-vl"} | written | changes)
    return words_work(spec, picture)


def of_questions(picture: int | None = None, **changes: Any) -> Work:
    written = {"prompt": "a fox", "count": 3, "drawing": False, "first": None}
    spec = ResolvedQuestionsSpec.model_validate(
        {"vlm": "qwen2.5-vl", "instructions": "Write."} | written | changes
    )
    return words_work(spec, picture)


def of_expansion(**changes: Any) -> Work:
    written = {"prompt": "a fox", "instructions": "Write."}
    spec = ResolvedExpansionSpec.model_validate({"vlm": "qwen2.5-vl"} | written | changes)
    return words_work(spec, None)


def asked(*texts: str) -> list[dict[str, str]]:
    return [{"question": text, "answer": "Yes"} for text in texts]


#: Of each field that changes what is computed, values of rising work. Beside those that are named,
#: the spec is that of a job for the tiny pair, or of Stable Diffusion, which knows guidance.
SD = {"generator": "sd-1.4"}
RISING: Mapping[str, list[dict[str, Any]]] = {
    "generator": [{}, SD],
    "prompts": [{"prompt": None, "prompts": ["a"] * count} for count in (1, 2, 9)],
    "questions": [{"questions": asked(*["Is it red?"] * count)} for count in (1, 2, 32)],
    "questions.question": [{"questions": asked("Is it red?" * count)} for count in (1, 2, 9)],
    "questions.answer": [
        {"questions": [{"question": "Is it red?", "answer": "Yes" * count}]} for count in (1, 9)
    ],
    "question_postfix": [{"question_postfix": "Say so." * count} for count in (0, 1, 9)],
    "vlm": [
        {"vlm": [{"name": name} for name in ["tiny-idefics2", "qwen2.5-vl", "idefics2"][:count]]}
        for count in (1, 2, 3)
    ],
    "judge": [{}, {"judge": "qwen2.5-vl"}],
    "image.width": [{"image": {"width": side}} for side in (32, 64, 128)],
    "image.height": [{"image": {"height": side}} for side in (32, 64, 128)],
    "image.num_inference_steps": [
        {"image": {"num_inference_steps": steps}} for steps in (1, 2, 50, 200)
    ],
    "image.guidance_scale": [SD | {"image": {"guidance_scale": scale}} for scale in (1, 1.5)],
    "optimizer.steps": [{"optimizer": {"steps": steps}} for steps in (1, 2, 20, 10_000)],
    # Random timesteps count as the last one, the most that they can be.
    "optimizer.timestep": [
        {"image": {"num_inference_steps": 4}, "optimizer": {"timestep": timestep}}
        for timestep in ("first", "random")
    ],
    "optimizer.batch": [{"optimizer": {"batch": batch}} for batch in (1, 2, 64)],
    "optimizer.accumulate": [{"optimizer": {"accumulate": count}} for count in (1, 2, 64)],
    "guard.anchor": [{"guard": {"anchor": anchor}} for anchor in (0, 0.1)],
    "guard.worst_case": [{"guard": {"worst_case": far}} for far in (0, 0.1)],
    "eval.images": [{"eval": {"images": images}} for images in (1, 2, 64)],
    # Fewer steps between two previews are more previews; 0 is none.
    "eval.every": [
        {"optimizer": {"steps": 12}, "eval": {"every": every}} for every in (0, 12, 5, 1)
    ],
}
#: Fields that change nothing of it, or nothing that is counted; each with two values.
SAME: Mapping[str, list[dict[str, Any]]] = {
    "prompt": [{"prompt": "a circle"}, {"prompt": "a circle" * 99}],
    # The vision tower sees the picture once more, which each question's pass allows for.
    "questions.visual_prompt": [{}],
    "questions.visual_prompt.image": [{}],
    "questions.visual_prompt.mode": [{}],
    "questions.weight": [{"questions": [asked("Why?")[0] | {"weight": w}]} for w in (1, 9)],
    "vlm.name": [{"vlm": name} for name in ("tiny-idefics2", "qwen2.5-vl")],
    "vlm.weight": [{"vlm": [{"name": "idefics2", "weight": weight}]} for weight in (1, 9)],
    "image.negative_prompt": [SD | {"image": {"negative_prompt": text}} for text in ("", "blue")],
    # The LoRA's own layers are not counted.
    "lora.rank": [{"lora": {"rank": rank}} for rank in (1, 256)],
    "lora.alpha": [{"lora": {"alpha": alpha}} for alpha in (1, 9)],
    "lora.weight": [{"lora": {"weight": weight}} for weight in (1, 9)],
    "lora.target_modules": [{"lora": {"target_modules": ["a"] * count}} for count in (1, 9)],
    "lora.init": [{"lora": {"init": init}} for init in ("gaussian", "kaiming")],
    "lora.dtype": [{"lora": {"dtype": dtype}} for dtype in ("float32", "bfloat16")],
    "lora.start": [{}, {"lora": {"start": {"job": "0" * 26}}}],
    "lora.start.job": [{"lora": {"start": {"job": digit * 26}}} for digit in "01"],
    "lora.start.artifact": [{}],
    "lora.start.file": [{}],
    "optimizer.lr": [{"optimizer": {"lr": lr}} for lr in (1e-6, 1)],
    "optimizer.weight_decay": [{"optimizer": {"weight_decay": decay}} for decay in (0, 1)],
    "optimizer.max_grad_norm": [{"optimizer": {"max_grad_norm": norm}} for norm in (0.1, 9)],
    "optimizer.seed": [{"optimizer": {"seed": seed}} for seed in (0, 9)],
    # It is the most that counts: what the base model predicted once only makes it less.
    "optimizer.noise_seeds": [{"optimizer": {"noise_seeds": seeds}} for seeds in (1, 9)],
    # Files.
    "optimizer.checkpoint_every": [{"optimizer": {"checkpoint_every": n}} for n in (0, 1)],
    "guard.margin": [{"guard": {"margin": margin}} for margin in (0.5, 1)],
    "eval.seed": [{"eval": {"seed": seed}} for seed in (0, 9)],
    "stop_at_score": [{"stop_at_score": score} for score in (0.5, 0.9)],
    "deadline": [{"deadline": seconds} for seconds in (1, 9)],
    "webhook": [{}],
    "webhook.url": [{}],
    "webhook.secret": [{}],
    "name": [{"name": name} for name in ("a", "b")],
    "metadata": [{"metadata": {}}, {"metadata": {"a": "b"}}],
    "guard": [{}],
    "image": [{}],
    "lora": [{}],
    "optimizer": [{}],
    "eval": [{}],
}

#: Likewise, of the other requests; ``{}`` is a field of whose values a job has the row.
IMAGES_RISING: Mapping[str, list[dict[str, Any]]] = {
    "generator": [{}, SD],
    "seeds": [{"seeds": list(range(count))} for count in (1, 2, 64)],
    "questions": [{"questions": asked(*["Is it red?"] * count)} for count in (0, 1, 32)],
    "question_postfix": [
        {"questions": asked("Why?"), "question_postfix": "Say so." * count} for count in (0, 1, 9)
    ],
    "best_of": [{"questions": asked("Why?"), "best_of": count} for count in (1, 2, 64)],
    "image": RISING["image.width"] + RISING["image.num_inference_steps"][-1:],
}
IMAGES_SAME: Mapping[str, list[dict[str, Any]]] = {
    "prompt": SAME["prompt"],
    # Their files are read; their layers are not counted.
    "loras": [{}, {"loras": [{"job": "0" * 26}]}],
    "vlm": [{"questions": asked("Why?"), "vlm": name} for name in ("idefics2", "qwen2.5-vl")],
    "wait": [{"wait": seconds} for seconds in (0, 9)],
}
WORDS = {
    "image": "rising with its pixels",
    "questions": "rising",
    "question_postfix": "rising",
    "max_new_tokens": "rising",
    "prompt": "rising",
    "instructions": "rising",
    "visual_prompt": "rising with its pixels",
    "first": "rising",
    # Tokens are counted as the most that a reply may have.
    "count": "same, but for its digits in the text",
    "generator": "same",
    "vlm": "same",
    "wait": "same",
}


def fields(model: type[BaseModel], above: str = "") -> Iterator[str]:
    """Every path that a user may write."""
    for name, field in model.model_fields.items():
        yield above + name
        for part in models_in(field.annotation):
            yield from fields(part, f"{above}{name}.")


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from models_in(inner)


def test_every_field_that_can_be_written_is_classified() -> None:
    """A new field says in a row whether it makes more work; if it does, the formula has to know."""
    assert set(fields(JobSpec)) == RISING.keys() | SAME.keys()
    assert not RISING.keys() & SAME.keys()
    assert set(ImagesRequest.model_fields) == IMAGES_RISING.keys() | IMAGES_SAME.keys()
    requests = (AnswersRequest, QuestionsRequest, ExpansionRequest)
    assert {name for request in requests for name in request.model_fields} == WORDS.keys()
    # Everything else in a batch is jobs.
    assert BatchRequest.model_fields.keys() == {
        *("specs", "spec", "prompts", "seeds", "repeats", "sweep", "name")
    }


def each(rows: Mapping[str, list[dict[str, Any]]]) -> pytest.MarkDecorator:
    found = {name: changes for name, changes in rows.items() if len(changes) > 1}
    return pytest.mark.parametrize("rising", found.values(), ids=found)


def totals(works: list[Work]) -> list[int]:
    return [sum(work.parts.values()) for work in works]


@each(RISING)
def test_more_of_a_field_is_more_work(rising: list[dict[str, Any]]) -> None:
    works = totals([of_job(**changes) for changes in rising])
    assert works == sorted(set(works)), rising


@each(SAME)
def test_these_fields_are_no_work(rising: list[dict[str, Any]]) -> None:
    assert len(set(totals([of_job(**changes) for changes in rising]))) == 1, rising


@each(IMAGES_RISING)
def test_more_of_a_field_is_more_work_of_images(rising: list[dict[str, Any]]) -> None:
    works = totals([of_images(**changes) for changes in rising])
    assert works == sorted(set(works)), rising


@each(IMAGES_SAME)
def test_these_fields_are_no_work_of_images(rising: list[dict[str, Any]]) -> None:
    assert len(set(totals([of_images(**changes) for changes in rising]))) == 1


def test_more_words_are_more_work() -> None:
    first = {"question": "Is it red?", "answer": "Yes"}
    for less, more in (
        (of_answers(64 * 64), of_answers(64 * 65)),
        (of_answers(), of_answers(questions=["Why?", "How?"])),
        (of_answers(), of_answers(questions=["Why is that?"])),
        (of_answers(), of_answers(question_postfix="Say so.")),
        (of_answers(), of_answers(max_new_tokens=9)),
        (of_questions(224 * 224, drawing=True), of_questions(224 * 225, drawing=True)),
        (of_questions(), of_questions(prompt="a red fox")),
        (of_questions(), of_questions(instructions="Write more.")),
        (of_questions(), of_questions(first=first)),
        (of_expansion(), of_expansion(prompt="a red fox")),
        (of_expansion(), of_expansion(instructions="Write more.")),
    ):
        assert less.total < more.total or totals([less]) < totals([more])
    assert totals([of_questions(count=3)]) == totals([of_questions(count=9)])


def test_the_formula_in_numbers() -> None:
    """A job of Stable Diffusion with everything on, by hand."""
    work = of_job(
        generator="sd-1.4",
        prompt=None,
        prompts=["a", "b", "c"],
        questions=asked("Red?"),
        question_postfix="Say.",
        vlm=[{"name": "idefics2"}, {"name": "qwen2.5-vl"}],
        judge="llava-1.5",
        image={"width": 512, "height": 256, "num_inference_steps": 10, "guidance_scale": 7.5},
        optimizer={"steps": 7, "batch": 2, "accumulate": 3},
        guard={"anchor": 1, "worst_case": 0.1},
        eval={"images": 4, "every": 3},
    )
    picture = 512 * 256
    asks = picture + 64 * len("Red?Yes" + "Say.")
    assert work.parts == {
        WorkPart.TRAINING: 42 * picture * 2 * (9 + 3 + 1),
        WorkPart.TEACHING: 42 * 2 * 6 * asks,
        WorkPart.PREVIEWS: 2 * 2 * picture * 2 * 10,
        WorkPart.EVALUATION: 4 * 2 * picture * 2 * 10,
        WorkPart.SCORING: 4 * 2 * 3 * asks,
        WorkPart.PROMPTS: 3 * 2 * 256 * PRESETS.generator("sd-1.4").max_sequence_length,
    }
    assert work.total == pytest.approx(sum(work.parts.values()) / MEGAPIXEL, abs=1e-3)


@pytest.mark.parametrize("name", PRESETS.generators)
def test_a_new_key_may_queue_as_many_jobs_as_it_may_have_at_any_presets_defaults(name: str) -> None:
    asks = {"prompt": "a circle", "questions": asked("Is the circle red?")}
    spec = JobSpec.model_validate(asks | {"generator": name, "vlm": "qwen2.5-vl"})
    preset, usual = PRESETS.generator(name), KeySettings()
    assert (
        usual.quota_queued * job_work(resolve_job(spec, PRESETS), preset).total < usual.quota_work
    )


class Counted:
    """What the models really did, in pixels times passes of ``picture`` pixels."""

    def __init__(self, pair: Pair) -> None:
        self.passes: Counter[str] = Counter()
        denoiser, text = pair.generator.denoiser, pair.vlm.text_model.norm
        self._hooks = [
            denoiser.register_forward_hook(self._of_denoiser),
            text.register_forward_hook(self._of_vlm),
            pair.generator.text_encoders[-1].register_forward_hook(self._of_prompt),
        ]

    def _of_denoiser(self, _module: Any, _inputs: Any, output: Any) -> None:
        self._note("denoiser", output[0])

    def _of_vlm(self, _module: Any, _inputs: Any, output: Any) -> None:
        self._note("vlm", output)

    def _of_prompt(self, _module: Any, _inputs: Any, output: Any) -> None:
        self.passes["prompt"] += len(output[0])

    def _note(self, model: str, rows: torch.Tensor) -> None:
        self.passes[model] += len(rows)
        if rows.requires_grad:
            hook = partial(self._note_the_way_back, model, 2 * len(rows))
            rows.register_hook(hook)  # type: ignore[no-untyped-call]

    def _note_the_way_back(self, model: str, passes: int, _gradient: torch.Tensor) -> None:
        self.passes[model] += passes

    def stop(self) -> None:
        for hook in self._hooks:
            hook.remove()


@dataclass(frozen=True)
class Real:
    """The REST API, with the tiny pair behind it in this process."""

    api: Api
    pair: Pair

    async def counted(self, path: str, body: dict[str, Any]) -> tuple[Job, Counter[str]]:
        """The job, once it has ended well, and what was computed for it."""
        counted = Counted(self.pair)
        try:
            answer = await self.api.http.post(path, json=body)
            assert answer.status_code in (200, 202), answer.text
            job = Job.model_validate_json(answer.content)
            while not job.status.is_final:
                await asyncio.sleep(0.03)
                job = await self.api.job(job.id)
        finally:
            counted.stop()
        assert job.status == JobStatus.SUCCEEDED, job.error
        return job, counted.passes


@pytest.fixture(scope="module")
def pair() -> Pair:
    return Pair.load("tiny-flux", "tiny-idefics2")


@pytest.fixture
async def real(
    api: Api, redis_server: RedisServer, artifacts: str, pair: Pair
) -> AsyncIterator[Real]:
    devices = DeviceThread("cpu"), DeviceThread("cpu")
    generator = GeneratorServicer(PRESETS.generator("tiny-flux"), pair.generator, devices[0])
    vlm = VlmServicer(PRESETS.vlm("tiny-idefics2"), pair.vlm, devices[1])
    async with (
        grpc_server(
            lambda s: generator_pb2_grpc.add_GeneratorServicer_to_server(generator, s)
        ) as generator_target,
        grpc_server(lambda s: vlm_pb2_grpc.add_VlmServicer_to_server(vlm, s)) as vlm_target,
    ):
        settings = WorkerSettings(
            redis_url=redis_server.url,
            artifacts=artifacts,
            generator=generator_target,
            vlms={"tiny-idefics2": vlm_target},
            poll_seconds=0.05,
        )
        worker = Worker(settings)
        running = asyncio.create_task(worker.run())
        yield Real(api, pair)
        worker.stop()
        await running
    for device in devices:
        device.close()


POSTFIX = "Yes or No?"
QUESTIONS = [{"question": f"Is it {colour}?", "answer": "Yes"} for colour in ("red", "big")]
#: Of each question, which have one length.
CHARACTERS = len("Is it red?") + len("Yes") + len(POSTFIX)


def as_counted(passes: Counter[str], picture: int) -> int:
    return (
        passes["denoiser"] * picture
        + passes["vlm"] * (picture + 64 * CHARACTERS * len(QUESTIONS))
        + passes["prompt"] * 256 * PRESETS.generator("tiny-flux").max_sequence_length
    )


@pytest.mark.parametrize(
    "guard", [{"anchor": 0.5, "worst_case": 0.05}, "off"], ids=["guarded", "plain"]
)
async def test_a_real_job_computes_what_the_formula_says(real: Real, guard: Any) -> None:
    body = SPEC | {
        "prompt": None,
        # Encodings are kept: these were never asked for before.
        "prompts": [f"a {guard!s:.20} circle", f"a {guard!s:.20} square"],
        "questions": QUESTIONS,
        "question_postfix": POSTFIX,
        "image": {"width": 64, "height": 32, "num_inference_steps": 2},
        "optimizer": {"steps": 1, "batch": 2, "accumulate": 2, "timestep": "last"},
        "guard": guard,
        "eval": {"images": 1, "every": 1},
    }
    job, passes = await real.counted("/v1/jobs", body)
    work = of_job(**body)
    assert as_counted(passes, 64 * 32) == sum(work.parts.values())
    assert job.work == work.total


async def test_a_real_job_at_random_timesteps_computes_no_more(real: Real) -> None:
    body = SPEC | {
        "questions": QUESTIONS,
        "question_postfix": POSTFIX,
        "image": {"num_inference_steps": 4},
        "optimizer": {"steps": 2, "batch": 1, "noise_seeds": 1},
        "eval": {"images": 1, "every": 0},
    }
    _, passes = await real.counted("/v1/jobs", body)
    work = sum(of_job(**body).parts.values())
    assert work / 4 < as_counted(passes, 64 * 64) <= work


async def test_real_images_compute_what_the_formula_says(real: Real) -> None:
    body = IMAGES | {
        "prompt": "a circle of images",
        "seeds": [1, 2],
        "questions": QUESTIONS,
        "question_postfix": POSTFIX,
        "image": {"num_inference_steps": 2},
    }
    job, passes = await real.counted("/v1/images", body)
    work = of_images(**body)
    assert as_counted(passes, 64 * 64) == sum(work.parts.values())
    assert job.work == work.total
