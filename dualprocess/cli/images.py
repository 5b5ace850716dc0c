"""``dualprocess generate``: images from a prompt, with or without LoRAs and scores."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from dualprocess.cli import dry_runs, specs, telling
from dualprocess.cli.completion import generators, job_ids, vlms
from dualprocess.cli.downloads import download
from dualprocess.cli.dry_runs import IsDry
from dualprocess.cli.pictures import painter
from dualprocess.cli.session import (
    BAD_INPUT,
    JOB_ENDED_BADLY,
    ApiKey,
    Json,
    Url,
    connected,
    fail,
    print_json,
    stdout,
    tell,
)
from dualprocess.protocol import DEFAULT_URL
from dualprocess.schemas import ImagesRequest, Job, JobStatus


def register(app: typer.Typer) -> None:
    app.command()(generate)


def generate(
    prompt: str,
    generator: Annotated[
        str, typer.Option(help="Preset.", autocompletion=generators)
    ] = "tiny-flux",
    lora: Annotated[
        list[str] | None,
        typer.Option(
            help="The id of a job or a safetensors file, with or without a weight: ID:0.8.",
            autocompletion=job_ids,
        ),
    ] = None,
    seeds: Annotated[str, typer.Option(help="Like 0,1,2 or 0-7.")] = "0",
    question: Annotated[
        list[str] | None, typer.Option(help="Question about each image, to score it.")
    ] = None,
    answer: Annotated[
        list[str] | None, typer.Option(help="The right answer to the question.")
    ] = None,
    vlm: Annotated[
        str | None, typer.Option(help="The VLM that answers.", autocompletion=vlms)
    ] = None,
    best_of: Annotated[
        int | None,
        typer.Option(
            "--best-of",
            help="Draw and score so many seeds, and keep the best as many as --seeds has.",
        ),
    ] = None,
    to: Annotated[Path, typer.Option(help="Folder for the images.")] = Path("images"),
    dry_run: IsDry = False,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    json: Json = False,
) -> None:
    """Render images, and score them if there are questions."""
    questions, answers = question or [], answer or []
    if len(questions) != len(answers):
        fail("give one --answer for each --question", BAD_INPUT)
    try:
        request = ImagesRequest.model_validate(
            {
                "prompt": prompt,
                "generator": generator,
                "seeds": _seeds(seeds),
                "loras": [_lora(text) for text in lora or []],
                "questions": [
                    {"question": asked, "answer": right}
                    for asked, right in zip(questions, answers, strict=True)
                ],
                "vlm": vlm,
                "best_of": best_of,
            }
        )
    except ValidationError as error:
        fail("\n".join(specs.faults(error)), BAD_INPUT)
    with connected(url, api_key) as client:
        if dry_run:
            dry_runs.show(client.dry_run(request), json=json)
            return
        job = client.generate(request)
        if not job.status.is_final:
            job = client.wait(job.id)
        to.mkdir(parents=True, exist_ok=True)
        paths = [download(client, job.id, name, to) for name in _files(job)]
    if json:
        print_json(job)
    else:
        for line in telling.images(job):
            tell(line)
    paint = None if json else painter(stdout)
    for path in [] if json else paths:
        if paint is not None:
            paint(path.read_bytes())
        tell(str(path))
    if job.status != JobStatus.SUCCEEDED:
        fail(job.error or f"job {job.id} is {job.status}", JOB_ENDED_BADLY)


def _files(job: Job) -> list[str]:
    """The names of its images, the best first if they were scored."""
    places = {f"image-{one.seed}.png": at for at, one in enumerate(job.scores.images)}
    names = [artifact.name for artifact in job.artifacts if artifact.name.startswith("image-")]
    return sorted(names, key=lambda name: places.get(name, 0))


def _seeds(text: str) -> list[int]:
    seeds: list[int] = []
    try:
        for part in text.split(","):
            first, dash, last = part.partition("-")
            seeds += range(int(first), int(last) + 1) if dash else [int(first)]
    except ValueError:
        fail(f"--seeds {text}: write it like 0,1,2 or 0-7", BAD_INPUT)
    return seeds


def _lora(text: str) -> dict[str, object]:
    name, colon, weight = text.rpartition(":") if ":" in text else (text, "", "")
    weighted: dict[str, object] = {"weight": weight} if colon else {}
    # Ids of jobs have neither.
    if "." not in name and os.sep not in name:
        return {"job": name} | weighted
    try:
        return {"file": Path(name).read_bytes()} | weighted
    except OSError as error:
        fail(f"--lora {text}: can't read {name}: {error.strerror}", BAD_INPUT)
