"""The tools. Their names, docstrings and fields are what an agent reads."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Annotated, Any, TypeAlias

from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import CallToolResult
from pydantic import Field

from dualprocess.async_client import AsyncClient
from dualprocess.mcp import following
from dualprocess.mcp.results import result, speaking, told
from dualprocess.schemas import (
    AnswersRequest,
    ImagesRequest,
    Job,
    JobSpec,
    JobStatus,
    LoraUse,
    Question,
)

AnyContext: TypeAlias = Context[Any, Any]
#: A client with the rights of the request.
Connect: TypeAlias = Callable[[AnyContext], AbstractAsyncContextManager[AsyncClient]]

#: Many clients give up on a call after a minute.
_FOLLOW_SECONDS = 50.0
_WAIT_SECONDS = 120.0
#: Pictures in one answer.
_PICTURES = 8

JobId = Annotated[str, Field(description="A job's id, as `teach` and `jobs` tell it.")]
Generator = Annotated[str, Field(description="Preset of the image generator; see `models`.")]
Vlm = Annotated[str, Field(description="Preset of the VLM; see `models`.")]
Prompt = Annotated[str, Field(description="What the images show.")]
Questions = Annotated[
    list[Question],
    Field(min_length=1, description="Questions about each image, with their right answers."),
]
Seeds = Annotated[
    list[int],
    Field(min_length=1, max_length=_PICTURES, description="One image for each."),
]
Loras = Annotated[list[LoraUse], Field(description="The LoRAs of ended jobs, each with a weight.")]


class Tools:
    """``url`` is the service's address, as the agent's own programs would use it."""

    def __init__(self, url: str, connect: Connect) -> None:
        self._url = url
        self._connect = connect

    def all(self) -> Sequence[Callable[..., Any]]:
        return (
            self.models,
            self.jobs,
            self.teach,
            self.follow,
            self.stop,
            self.draw,
            self.score,
            self.ask,
        )

    async def models(self, ctx: AnyContext) -> CallToolResult:
        """The generators and VLMs that the other tools can name, and how many workers serve each
        now. A job for a model without live workers waits for one."""
        with speaking():
            async with self._connect(ctx) as client:
                listed = await client.models()
        about = {"name", "model", "live_workers"}
        return result(
            {
                "generators": [one.model_dump(include=about) for one in listed.generators],
                "vlms": [one.model_dump(include=about) for one in listed.vlms],
            }
        )

    async def jobs(
        self,
        ctx: AnyContext,
        status: Annotated[JobStatus | None, Field(description="Only jobs with this one.")] = None,
        limit: Annotated[int, Field(ge=1, le=100)] = 20,
    ) -> CallToolResult:
        """The newest jobs, with their scores and files."""
        found: list[Job] = []
        with speaking():
            async with self._connect(ctx) as client:
                async for job in client.jobs(status=status):
                    found.append(job)
                    if len(found) == limit:
                        break
        return result({"jobs": [told(job, self._url) for job in found]})

    async def teach(
        self,
        ctx: AnyContext,
        prompt: Prompt,
        questions: Questions,
        generator: Generator,
        vlm: Vlm,
        judge: Annotated[
            str | None, Field(description="A VLM that scores the result and does not teach.")
        ] = None,
        settings: Annotated[
            dict[str, Any] | None,
            Field(
                description="Other fields of a job as the REST API takes them, like "
                '{"optimizer": {"steps": 50}, "stop_at_score": 0.9, "name": "red circles", '
                '"lora": {"start": {"job": "ID"}}}. What is left out comes from the preset.'
            ),
        ] = None,
        dry_run: Annotated[
            bool,
            Field(
                description="Queue nothing; tell the resolved settings, the work, the jobs "
                "before it, how long it would take, and whether a quota would refuse it."
            ),
        ] = False,
    ) -> CallToolResult:
        """Queues a job that teaches the generator a LoRA: images of the prompt are drawn, the VLM
        answers the questions about them, and the LoRA learns to make the right answers likely.
        Returns at once with the job's id; then call `follow`."""
        fields = {
            "prompt": prompt,
            "questions": questions,
            "generator": generator,
            "vlm": vlm,
            "judge": judge,
        }
        given = {name: value for name, value in fields.items() if value is not None}
        with speaking():
            spec = JobSpec.model_validate({**(settings or {}), **given})
            async with self._connect(ctx) as client:
                if dry_run:
                    return result((await client.dry_run(spec)).model_dump(mode="json"))
                return result(told(await client.submit(spec), self._url))

    async def follow(
        self,
        ctx: AnyContext,
        job: JobId,
        seconds: Annotated[
            float, Field(ge=0, le=3600, description="Return after this time at the latest.")
        ] = _FOLLOW_SECONDS,
    ) -> CallToolResult:
        """Follows a job until it ends, with a progress notification for each step. Returns its
        state, scores, warnings and files; and a picture: of an ended job the same seeds without
        (above) and with the LoRA (below), of a running one its newest preview. If it has not ended,
        call `follow` again. Stopping to follow does not stop the job."""
        with speaking():
            async with self._connect(ctx) as client:
                found = await following.follow(
                    client, await client.job(job), ctx.report_progress, seconds=seconds
                )
                pictures = [
                    await client.read_artifact(found.id, name) for name in _worth_seeing(found)
                ]
        return result(told(found, self._url), pictures)

    async def stop(self, ctx: AnyContext, job: JobId) -> CallToolResult:
        """Ends a queued job; stops a running one after its step, and what it learned is exported.
        A job that has ended stays as it is."""
        with speaking():
            async with self._connect(ctx) as client:
                return result(told(await client.cancel(job), self._url))

    async def draw(
        self,
        ctx: AnyContext,
        prompt: Prompt,
        generator: Generator,
        seeds: Seeds = [0],  # noqa: B006  # pydantic copies it
        loras: Loras = [],  # noqa: B006
    ) -> CallToolResult:
        """Draws images, with or without the LoRAs of ended jobs, and returns the pictures."""
        with speaking():
            request = ImagesRequest(
                prompt=prompt,
                generator=generator,
                seeds=seeds,
                loras=loras,
                wait=_WAIT_SECONDS,
            )
            async with self._connect(ctx) as client:
                job = await _drawn(client, request)
                pictures = [
                    await client.read_artifact(job.id, f"image-{seed}.png")
                    for seed in dict.fromkeys(seeds)
                ]
        return result(told(job, self._url), pictures)

    async def score(
        self,
        ctx: AnyContext,
        prompt: Prompt,
        questions: Questions,
        generator: Generator,
        vlm: Vlm,
        seeds: Seeds = [0, 1, 2, 3],  # noqa: B006
        loras: Loras = [],  # noqa: B006
    ) -> CallToolResult:
        """Draws images and has a VLM score them: the probability of each right answer, from 0 to 1.
        Without `loras` it tells whether the base model needs teaching at all."""
        with speaking():
            request = ImagesRequest(
                prompt=prompt,
                generator=generator,
                questions=questions,
                vlm=vlm,
                seeds=seeds,
                loras=loras,
                wait=_WAIT_SECONDS,
            )
            async with self._connect(ctx) as client:
                job = await _drawn(client, request)
        return result(told(job, self._url))

    async def ask(
        self,
        ctx: AnyContext,
        questions: Annotated[list[str], Field(min_length=1)],
        vlm: Vlm,
        image: Annotated[
            str | None, Field(description="A picture (PNG, JPEG, …) in base64.")
        ] = None,
        job: Annotated[
            str | None, Field(description="Instead of `image`: the id of a job that has it.")
        ] = None,
        file: Annotated[
            str, Field(description="The name of the job's file, like image-0.png or lora-0.png.")
        ] = "image-0.png",
    ) -> CallToolResult:
        """A VLM answers questions about a picture in its own words, one answer for each."""
        if (image is None) == (job is None):
            raise ToolError("image: write either image, a picture in base64, or job and file")
        with speaking():
            async with self._connect(ctx) as client:
                picture = _decoded(image) if image else await client.read_artifact(job or "", file)
                request = AnswersRequest(
                    image=picture, questions=questions, vlm=vlm, wait=_WAIT_SECONDS
                )
                answers = await client.ask(request)
        return result({"answers": answers})


async def _drawn(client: AsyncClient, request: ImagesRequest) -> Job:
    job = await client.generate(request)
    return job if job.status == JobStatus.SUCCEEDED else await client.wait(job.id)


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text.partition(",")[2] if text.startswith("data:") else text)
    except binascii.Error:
        raise ToolError("image: is no base64; send the bytes of a picture in base64") from None


def _worth_seeing(job: Job) -> list[str]:
    names = [file.name for file in job.artifacts]
    if "samples.png" in names:
        return ["samples.png"]
    drawn = [name for name in names if name.startswith("image-")][:_PICTURES]
    previews = sorted(name for name in names if name.startswith("preview-"))
    return drawn or previews[-1:]
