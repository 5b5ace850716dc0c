"""``questions expand ask``: what a VLM, or the service's language model, says in its own words."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
import yaml
from pydantic import BaseModel, ValidationError

from dualprocess import printable
from dualprocess.cli import specs
from dualprocess.cli.completion import generators, vlms
from dualprocess.cli.session import (
    BAD_INPUT,
    ApiKey,
    Json,
    Url,
    connected,
    fail,
    note,
    tell,
    tell_json,
)
from dualprocess.protocol import DEFAULT_URL
from dualprocess.schemas import AnswersRequest, ExpansionRequest, Question, QuestionsRequest

RequestT = TypeVar("RequestT", bound=BaseModel)

Writer = Annotated[
    str | None,
    typer.Option(
        "--vlm",
        help="Who writes; left out, the service's language model.",
        autocompletion=vlms,
    ),
]
Instructions = Annotated[
    str | None, typer.Option(help="What the writer is told, in place of the default.")
]
Wait = Annotated[float, typer.Option(help="Seconds to wait; then exit code 3.")]


def register(app: typer.Typer) -> None:
    for command in (questions, expand, ask):
        app.command()(command)


def questions(
    prompt: str,
    count: Annotated[int, typer.Option(help="At most.")] = 5,
    drawing: Annotated[
        Path | None, typer.Option(help="A picture that will lie over the image.")
    ] = None,
    mode: Annotated[str, typer.Option(help="Of the drawing: solid or transparent.")] = "solid",
    question: Annotated[
        str | None, typer.Option(help="One that you have; with --drawing it is asked of that.")
    ] = None,
    answer: Annotated[str, typer.Option(help="Its right answer.")] = "Yes",
    instructions: Instructions = None,
    vlm: Writer = None,
    wait: Wait = 60.0,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    json: Json = False,
) -> None:
    """Write questions for a prompt, as YAML that a job file can hold."""
    fields: dict[str, Any] = {"prompt": prompt, "count": count, "vlm": vlm, "wait": wait}
    if drawing is not None:
        fields["visual_prompt"] = {"image": _read(drawing), "mode": mode}
    if question is not None:
        on_drawing = drawing is not None
        fields["first"] = {"question": question, "answer": answer, "on_drawing": on_drawing}
    request = _request(QuestionsRequest, fields, instructions)
    with connected(url, api_key) as client:
        written = client.write_questions(request)
    if json:
        tell_json({"questions": [one.model_dump(mode="json") for one in written]})
    else:
        listed = {"questions": [_entry(one, drawing) for one in written]}
        tell(yaml.safe_dump(listed, sort_keys=False, allow_unicode=True).removesuffix("\n"))


def expand(
    prompt: str,
    generator: Annotated[
        str | None,
        typer.Option(
            help="Who will draw it; then it gets no longer than that one reads.",
            autocompletion=generators,
        ),
    ] = None,
    instructions: Instructions = None,
    vlm: Writer = None,
    wait: Wait = 60.0,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    json: Json = False,
) -> None:
    """Write a prompt out, with what an eye would see."""
    fields = {"prompt": prompt, "generator": generator, "vlm": vlm, "wait": wait}
    request = _request(ExpansionRequest, fields, instructions)
    with connected(url, api_key) as client:
        expanded, warnings = client.expansion(request)
    if json:
        tell_json({"prompt": expanded, "warnings": warnings})
        return
    tell(expanded)
    for sentence in warnings:
        note(f"warning: {sentence}")


def ask(
    image: Annotated[Path, typer.Argument(help="A picture: PNG, JPEG, …")],
    questions: Annotated[
        list[str] | None, typer.Argument(help="Left out: Describe the image.")
    ] = None,
    vlm: Annotated[str, typer.Option(help="Who answers.", autocompletion=vlms)] = "tiny-idefics2",
    postfix: Annotated[str, typer.Option(help="Goes behind each question.")] = "",
    max_new_tokens: Annotated[int, typer.Option(help="How long an answer may get.")] = 64,
    wait: Wait = 60.0,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    json: Json = False,
) -> None:
    """Ask a VLM about an image: an answer a line."""
    fields = {
        "image": _read(image),
        "questions": questions or ["Describe the image."],
        "question_postfix": postfix,
        "vlm": vlm,
        "max_new_tokens": max_new_tokens,
        "wait": wait,
    }
    request = _request(AnswersRequest, fields)
    with connected(url, api_key) as client:
        answers = client.ask(request)
    if json:
        tell_json({"answers": answers})
    else:
        for answer in answers:
            tell(printable.line(" ".join(answer.split())))


def _request(
    model: type[RequestT], fields: dict[str, Any], instructions: str | None = None
) -> RequestT:
    if instructions is not None:
        fields = fields | {"instructions": instructions}
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        fail("\n".join(specs.faults(error)), BAD_INPUT)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        fail(f"{path}: {error.strerror}", BAD_INPUT)


def _entry(question: Question, drawing: Path | None) -> dict[str, Any]:
    """As a job file has it: the drawing by its path."""
    entry: dict[str, Any] = {"question": question.question, "answer": question.answer}
    if question.visual_prompt is not None:
        entry["visual_prompt"] = {"image": str(drawing), "mode": question.visual_prompt.mode}
    return entry
