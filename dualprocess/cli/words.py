"""``questions expand ask``: a VLM, or the service's language model, answers in its own words."""

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
        help="The VLM that writes; by default the service's language model writes.",
        autocompletion=vlms,
    ),
]
Instructions = Annotated[
    str | None, typer.Option(help="Instructions to the writer, instead of the default ones.")
]
Wait = Annotated[float, typer.Option(help="Seconds to wait before giving up with exit code 3.")]


def register(app: typer.Typer) -> None:
    for command in (questions, expand, ask):
        app.command()(command)


def questions(
    prompt: str,
    count: Annotated[int, typer.Option(help="At most this many.")] = 5,
    drawing: Annotated[
        Path | None, typer.Option(help="A drawing that will be laid over the image.")
    ] = None,
    mode: Annotated[str, typer.Option(help="Mode of the drawing: solid or transparent.")] = "solid",
    question: Annotated[
        str | None,
        typer.Option(help="A question of your own; with --drawing it is about the drawing."),
    ] = None,
    answer: Annotated[str, typer.Option(help="The right answer to --question.")] = "Yes",
    instructions: Instructions = None,
    vlm: Writer = None,
    wait: Wait = 60.0,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    json: Json = False,
) -> None:
    """Write questions for a prompt, as YAML for a job file."""
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
            help="The generator that will draw it; the prompt gets no longer than it can read.",
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
    """Write a longer prompt, with details that can be seen."""
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
        list[str] | None, typer.Argument(help="By default: Describe the image.")
    ] = None,
    vlm: Annotated[
        str, typer.Option(help="The VLM that answers.", autocompletion=vlms)
    ] = "tiny-idefics2",
    postfix: Annotated[str, typer.Option(help="Added after each question.")] = "",
    max_new_tokens: Annotated[int, typer.Option(help="The longest answer, in tokens.")] = 64,
    wait: Wait = 60.0,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    json: Json = False,
) -> None:
    """Ask a VLM about an image; prints one answer per line."""
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
    """The question as a job file has it, with the drawing as a path."""
    entry: dict[str, Any] = {"question": question.question, "answer": question.answer}
    if question.visual_prompt is not None:
        entry["visual_prompt"] = {"image": str(drawing), "mode": question.visual_prompt.mode}
    return entry
